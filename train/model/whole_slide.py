"""Predictions of a whole slide: each with its full neighbourhood, so that they depend neither on how many rows are
predicted together nor on which.

Where an encoder was trained, the fine level is encoded once; its features wait on disk, as those of a whole slide fill
gigabytes.
"""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import torch

from magnet_core.ranks import ranks
from train.data.sampler import along_curve
from train.data.slide import Slide
from train.data.subgraph import SubgraphSpec, gather_graph, within_hops
from train.model.predictor import Predictor

# N fine rows, n rows of a chunk, P panel genes, F fine features

ENCODED_ROWS = 256  # patches that a process encodes together
PREDICTED_ROWS = 4096  # rows predicted together, with their halo


Advance = Callable[[str, int], None]  # is told of so many rows that were encoded, or predicted


def _unheard(work: str, rows: int) -> None:
    """Tell nobody."""


@torch.inference_mode()
def predict_slide(
    predictor: Predictor,
    slide: Slide,
    *,
    batch_size: int = PREDICTED_ROWS,
    symmetries: Sequence[int] = (0,),
    advance: Advance = _unheard,
) -> np.ndarray:
    """Normalised expression of every fine row of a slide, float32 (N, P).

    With several symmetries of the square it is the mean over patches that are turned by each.
    """
    predictor.eval()
    model = predictor.model
    device = next(model.parameters()).device
    spec = SubgraphSpec.to_predict(model)
    order = along_curve(slide.fine.centres_um)
    predictions = np.empty((len(slide.fine), model.num_genes), np.float32)
    with ExitStack() as stack:
        encoded: dict[int, np.ndarray] = {}
        for symmetry in symmetries if predictor.encoder is not None else ():
            file = stack.enter_context(tempfile.TemporaryFile())
            encoded[symmetry] = encode_slide(predictor, slide, file, symmetry=symmetry, advance=advance)
        for start in range(0, len(order), batch_size):
            rows = np.sort(order[start : start + batch_size])
            nodes = within_hops(slide.fine.edges, rows, hops=spec.halo)
            total = torch.zeros((len(nodes), model.num_genes), device=device)
            for symmetry in symmetries:
                graph, _ = gather_graph(slide, nodes, spec=spec, device=device, symmetry=symmetry)
                if symmetry in encoded:
                    raw = torch.from_numpy(encoded[symmetry][nodes]).to(device)
                else:
                    raw = slide.fine.features("fine", nodes, view=symmetry, device=device)
                total += model(slide.fine.fine_scale(raw), graph).fine.float()
            of_rows = (total / len(symmetries))[np.searchsorted(nodes, rows)]
            if predictor.linear is not None:
                of_rows = torch.lerp(of_rows, predictor.linear(slide, rows, symmetries), predictor.linear.share)
            predictions[rows] = of_rows.cpu().numpy()
            advance("predict", len(rows))
        encoded.clear()
    return predictions


def encode_slide(
    predictor: Predictor, slide: Slide, file: object, *, symmetry: int = 0, advance: Advance = _unheard
) -> np.ndarray:
    """Fine features (N, F) float32 of every fine row as the predictor's encoder gives them, mapped from `file`."""
    device, shape = next(predictor.parameters()).device, (len(slide.fine), slide.fine.fine_width)
    features: np.ndarray = np.memmap(file, np.float32, "w+", shape=shape)  # type: ignore[call-overload]
    of = ranks()
    for start in range(0, len(features), step := ENCODED_ROWS * of.size):
        rows = np.arange(start, min(start + step, len(features)))
        patches = torch.from_numpy(slide.fine.pixels(of.share(rows))).to(device)
        features[rows] = of.gather(predictor.features(patches, symmetry=symmetry), len(rows)).cpu().numpy()
        advance("encode", len(rows))
    return features
