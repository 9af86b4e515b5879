"""A training in float64 by one or several processes: what `test_together.py` compares, as a program.

    python -m tests.train.learning.together STORE FOLDER SETTING...

Writes `rank-N.pt` into the folder: the losses of the first steps, the weights after them, and what was encoded here.
"""

import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from cache.store import Store
from magnet_core.global_seeds import seed_everything
from magnet_core.ranks import together
from tests.train.setting import config, parts, side_of
from train.data.subgraph import Batch
from train.learning.loop import start, training_step
from train.systems.magnet import loop_settings, magnet_trainee

STEPS = 4


def in_float64(batch: Batch) -> Batch:
    contexts = {name: wider(context) for name, context in batch.graph.contexts.items()}
    return replace(batch, graph=replace(batch.graph, contexts=contexts), labels=replace(batch.labels))


def wider(values: Any) -> Any:
    tensors = {each.name: getattr(values, each.name) for each in fields(values)}
    return replace(values, **{
        name: value.double() for name, value in tensors.items() if value is not None and value.is_floating_point()
    })  # fmt: skip


def main(store: str, folder: str, *settings: str) -> None:
    """Take some steps, and write what came of them."""
    with together() as ranks:
        chosen = config(Store(Path(store)), Path(folder), *settings)
        slide, predictor = parts(Store(Path(store)), chosen)
        seed_everything(1)
        predictor.double()
        trainee = magnet_trainee(predictor, side_of(slide, chosen), chosen)
        state = start(trainee, loop_settings(chosen))
        predictor.train()
        losses, encoded = [], []
        for batch in trainee.gather(trainee.draw_epoch(0)[:STEPS]):
            loss, _ = training_step(trainee, state, in_float64(batch), clip_norm=1.0)
            losses.append(loss)
            encoded.append((len(batch), len(batch.fine)))
        made = {"losses": losses, "encoded": encoded, "weights": predictor.state_dict()}
        torch.save(made, Path(folder) / f"rank-{ranks.rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
