"""Predictions of a whole slide: each with its full neighbourhood, so that they depend neither on how many rows are
predicted together nor on which.

The fine level is encoded once; its features wait on disk, as those of a whole slide fill gigabytes.
"""

import tempfile
from collections.abc import Callable

import numpy as np
import torch

from train.data.sampler import along_curve
from train.data.slide import Slide
from train.data.subgraph import SubgraphSpec, gather_graph, within_hops
from train.model.predictor import Predictor

# N fine rows, n rows of a chunk, P panel genes, D features

ENCODED_ROWS = 256  # patches encoded together
PREDICTED_ROWS = 4096  # rows predicted together, with their halo


Advance = Callable[[str, int], None]  # is told of so many rows that were encoded, or predicted


def _unheard(work: str, rows: int) -> None:
    """Tell nobody."""


@torch.inference_mode()
def predict_slide(
    predictor: Predictor, slide: Slide, *, batch_size: int = PREDICTED_ROWS, advance: Advance = _unheard
) -> np.ndarray:
    """Normalised expression of every fine row of a slide, float32 (N, P)."""
    predictor.eval()
    model = predictor.model
    device = next(model.parameters()).device
    spec = SubgraphSpec.to_predict(model)
    order = along_curve(slide.fine.centres_um)
    predictions = np.empty((len(slide.fine), model.num_genes), np.float32)
    with tempfile.TemporaryFile() as file:
        features = encode_slide(predictor, slide, file, advance=advance)
        for start in range(0, len(order), batch_size):
            rows = np.sort(order[start : start + batch_size])
            nodes = within_hops(slide.fine.edges, rows, hops=spec.halo)
            graph, _ = gather_graph(slide, nodes, spec=spec, device=device)
            fine = slide.fine.scale(torch.from_numpy(features[nodes]).to(device))
            chunk = model(fine, graph).fine.float().cpu().numpy()
            predictions[rows] = chunk[np.searchsorted(nodes, rows)]
            advance("predict", len(rows))
        del features
    return predictions


def encode_slide(predictor: Predictor, slide: Slide, file: object, *, advance: Advance = _unheard) -> np.ndarray:
    """Raw features (N, D) of every fine row, mapped from `file`; cached ones where the encoder is frozen."""
    device = next(predictor.parameters()).device
    dtype = np.float32 if predictor.encoder is not None else np.float16
    features: np.ndarray = np.memmap(file, dtype, "w+", shape=(len(slide.fine), slide.fine.width))  # type: ignore[call-overload]
    for start in range(0, len(features), ENCODED_ROWS):
        rows = np.arange(start, min(start + ENCODED_ROWS, len(features)))
        if predictor.encoder is None:
            features[rows] = slide.fine.pooled(rows)
        else:
            features[rows] = predictor.features(torch.from_numpy(slide.fine.pixels(rows)).to(device)).cpu().numpy()
            advance("encode", len(rows))
    return features
