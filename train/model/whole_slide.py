"""Predictions of a whole slide: each with its full neighbourhood, so that they depend neither on how many rows are
predicted together nor on which.

Where an encoder was trained, the fine level is encoded once; its features wait on disk, as those of a whole slide fill
gigabytes.
"""

import tempfile
from collections.abc import Callable

import numpy as np
import torch

from train.data.sampler import along_curve
from train.data.slide import Slide
from train.data.subgraph import SubgraphSpec, gather_graph, within_hops
from train.model.predictor import Predictor

# N fine rows, n rows of a chunk, P panel genes, F fine features

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
        encoded = None if predictor.encoder is None else encode_slide(predictor, slide, file, advance=advance)
        for start in range(0, len(order), batch_size):
            rows = np.sort(order[start : start + batch_size])
            nodes = within_hops(slide.fine.edges, rows, hops=spec.halo)
            graph, _ = gather_graph(slide, nodes, spec=spec, device=device)
            if encoded is None:
                raw = slide.fine.features("fine", nodes, device=device)
            else:
                raw = torch.from_numpy(encoded[nodes]).to(device)
            chunk = model(slide.fine.fine_scale(raw), graph).fine.float().cpu().numpy()
            predictions[rows] = chunk[np.searchsorted(nodes, rows)]
            advance("predict", len(rows))
        del encoded
    return predictions


def encode_slide(predictor: Predictor, slide: Slide, file: object, *, advance: Advance = _unheard) -> np.ndarray:
    """Fine features (N, F) float32 of every fine row as the predictor's encoder gives them, mapped from `file`."""
    device, shape = next(predictor.parameters()).device, (len(slide.fine), slide.fine.fine_width)
    features: np.ndarray = np.memmap(file, np.float32, "w+", shape=shape)  # type: ignore[call-overload]
    for start in range(0, len(features), ENCODED_ROWS):
        rows = np.arange(start, min(start + ENCODED_ROWS, len(features)))
        features[rows] = predictor.features(torch.from_numpy(slide.fine.pixels(rows)).to(device)).cpu().numpy()
        advance("encode", len(rows))
    return features
