"""The subgraphs of one epoch, drawn from the seed and the epoch's number alone: a training that resumes in the middle
of an epoch meets the same subgraphs in the same order.
"""

from collections.abc import Generator, Sequence
from dataclasses import replace

import numpy as np
import torch

from magnet_core.prefetch import read_ahead
from magnet_core.registry import look_up
from magnet_core.symmetry import NUM_SYMMETRIES
from train.data.labels import SlideLabels
from train.data.raw_counts import RawCounts
from train.data.rows import Rows
from train.data.sampler import SAMPLERS
from train.data.slide import Slide
from train.data.subgraph import Batch, SubgraphSpec, build_batch
from train.settings.fit import FitConfig

# N fine rows of a subgraph


def draw_epoch(slides: Sequence[Slide], epoch: int, *, config: FitConfig) -> list[Rows]:
    """Cut every slide into parts, each of one slide, and mix them."""
    rng = np.random.default_rng([config.seed, epoch])
    sampler = look_up(SAMPLERS, config.sampler, where="sampler")
    parts = [(slide, rows) for slide in slides for rows in sampler(slide.fine.centres_um, config.optim.batch_size, rng)]
    order = rng.permutation(len(parts))
    symmetries = rng.integers(NUM_SYMMETRIES, size=len(parts)) if config.augment else np.zeros(len(parts), np.int64)
    return [
        Rows(slide, rows, int(symmetry))
        for (slide, rows), symmetry in zip((parts[p] for p in order), symmetries, strict=True)
    ]


def epoch_batches(
    parts: Sequence[Rows],
    labels: SlideLabels,
    *,
    spec: SubgraphSpec,
    device: torch.device,
    raw_counts: RawCounts | None = None,
) -> Generator[Batch]:
    """Yield the subgraphs of an epoch's parts; each is gathered while the previous one is trained on."""
    return read_ahead(_gather(part, labels, spec=spec, device=device, raw_counts=raw_counts) for part in parts)


def _gather(
    part: Rows, labels: SlideLabels, *, spec: SubgraphSpec, device: torch.device, raw_counts: RawCounts | None
) -> Batch:
    of_slide = labels[part.slide.slide_id]
    batch = build_batch(part.slide, part.rows, of_slide, spec=spec, device=device, symmetry=part.symmetry)
    return batch if raw_counts is None else replace(batch, labels=raw_counts.labels_of(batch))
