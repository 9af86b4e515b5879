"""A subgraph is the whole slide as far as it counts: predictions and gradients, in training and at prediction."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cache.store import Store
from magnet_core.losses import magnet_loss
from tests.train.setting import config, labels_of, parts
from train.data.slide import Slide
from train.data.subgraph import Batch, SubgraphSpec, build_batch
from train.model.predictor import Predictor
from train.model.whole_slide import predict_slide

CPU = torch.device("cpu")
ROWS = np.arange(40, 90)


def whole_slide(slide: Slide, labels: dict[str, np.ndarray | None], predictor: Predictor) -> Batch:
    """Every fine row in one batch, with every row of the contexts."""
    spec = SubgraphSpec(0, tuple(predictor.model.context_dims), whole_contexts=True, pixels=False)
    return build_batch(slide, np.arange(len(slide.fine)), labels, spec=spec, device=CPU)


def gradient_of(output: Tensor, modules: list[nn.Module]) -> list[Tensor]:
    parameters = [parameter for module in modules for parameter in module.parameters()]
    weights = torch.linspace(-1, 1, output.numel()).reshape(output.shape)
    return list(torch.autograd.grad((output * weights).sum(), parameters, retain_graph=True))


@pytest.mark.parametrize("target", [8, 16, 55])
@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_spots_and_regions_of_a_batch_are_those_of_the_whole_slide(
    small_store: Store, tmp_path: Path, target: int, rounds: int
) -> None:
    settings = config(small_store, tmp_path, f"data.target={target}", f"model.rounds={rounds}", "encoder.mode=frozen")
    slide, predictor = parts(small_store, settings)
    predictor.eval()
    labels = labels_of(slide, settings)
    rows = np.arange(4, 10) if target == 55 else ROWS
    batch = build_batch(
        slide, rows, labels, spec=SubgraphSpec.to_train(predictor.model, halo=0, pixels=False), device=CPU
    )
    whole = whole_slide(slide, labels, predictor)
    of_batch, of_slide = predictor(batch), predictor(whole)
    for name, context in batch.graph.contexts.items():
        here = of_batch.contexts[name][context.pair]
        there = of_slide.contexts[name][whole.graph.contexts[name].pair[rows]]
        torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-5)
        modules = [predictor.model.decode_context[name], predictor.model.project_context[name]]
        for one, other in zip(gradient_of(here, modules), gradient_of(there, modules), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_with_a_full_halo_fine_predictions_and_their_gradients_are_exact_too(
    small_store: Store, tmp_path: Path
) -> None:
    settings = config(small_store, tmp_path, "encoder.mode=frozen")
    slide, predictor = parts(small_store, settings)
    predictor.eval()
    labels = labels_of(slide, settings)
    whole = whole_slide(slide, labels, predictor)
    there = predictor(whole).fine[ROWS]
    deviations = []
    for halo in (0, 1, predictor.model.config.reach):
        spec = SubgraphSpec.to_train(predictor.model, halo=halo, pixels=False)
        batch = build_batch(slide, ROWS, labels, spec=spec, device=CPU)
        own = ~batch.labels.fine.isnan().all(dim=1)
        np.testing.assert_array_equal(batch.rows[own.numpy()], ROWS)
        here = predictor(batch).fine[own]
        deviations.append((here - there).abs().max().item())
    torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-5)
    assert deviations[0] > deviations[2]  # without the halo a bin at the seam misses neighbours
    modules: list[nn.Module] = [predictor.model.decode_fine, predictor.model.project_fine]
    for one, other in zip(gradient_of(here, modules), gradient_of(there, modules), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_the_halo_has_no_loss(small_store: Store, tmp_path: Path) -> None:
    settings = config(small_store, tmp_path, "encoder.mode=frozen")
    slide, predictor = parts(small_store, settings)
    predictor.eval()
    labels = labels_of(slide, settings)
    spec = SubgraphSpec.to_train(predictor.model, halo=2, pixels=False)
    losses = []
    for outside in (0.0, 1e3):
        marked = {name: None if known is None else known.copy() for name, known in labels.items()}
        fine = marked[slide.fine.name]
        assert fine is not None
        fine[np.setdiff1d(np.arange(len(fine)), ROWS)] += outside
        batch = build_batch(slide, ROWS, marked, spec=spec, device=CPU)
        assert len(batch) > len(ROWS)
        losses.append(magnet_loss(predictor(batch), batch.labels, graph=batch.graph, config=settings.loss)[0].item())
    assert losses[0] == losses[1]


@pytest.mark.parametrize("attend", ["tokens", "graph"])
def test_predictions_do_not_depend_on_how_many_are_made_together(
    small_store: Store, tmp_path: Path, attend: str
) -> None:
    settings = config(small_store, tmp_path, f"model.attend={attend}")
    slide, predictor = parts(small_store, settings)
    small, large = (predict_slide(predictor, slide, batch_size=size) for size in (64, 1024))
    np.testing.assert_allclose(small, large, atol=1e-5)
    predictor.eval()
    with torch.inference_mode():
        fine = predictor.features(torch.from_numpy(slide.fine.pixels(np.arange(len(slide.fine)))))
        graph = whole_slide(slide, labels_of(slide, settings), predictor).graph
        literal = predictor.model(slide.fine.fine_scale(fine), graph).fine
    np.testing.assert_allclose(small, literal.numpy(), atol=1e-5)
