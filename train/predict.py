"""Predictions of a whole slide on its whole graph: they depend neither on a batch size nor on batch mates."""

import numpy as np
import torch

from magnet_core.backbones import Encoder
from magnet_core.model import MagNet
from train.dataset import Slide
from train.subgraph import whole_slide_graph

# N fine rows, P panel genes


@torch.inference_mode()
def predict_slide(encoder: Encoder, model: MagNet, slide: Slide, *, batch_size: int = 256) -> np.ndarray:
    """Normalised expression of every fine row of a slide, float32 (N, P)."""
    encoder.eval()
    model.eval()
    device = next(model.parameters()).device
    rows = np.arange(len(slide.fine))
    features = []
    for start in range(0, len(rows), batch_size):
        pixels = torch.from_numpy(slide.fine.pixels(rows[start : start + batch_size])).to(device)
        features.append(slide.fine.scale(encoder(pixels, token_grid=1).pooled))
    return model(torch.cat(features), whole_slide_graph(slide, device)).fine.float().cpu().numpy()
