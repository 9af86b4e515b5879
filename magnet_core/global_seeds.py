"""The global seeds are set here and nowhere else."""

import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch once, at the start of what is computed."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
