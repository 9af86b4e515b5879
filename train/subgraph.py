"""A batch: N fine rows of one slide, the edges among them, and the spots and regions they need.

The context rows of a batch are those paired with its fine rows plus everything within L hops of these on the level's
own graph, so that predictions at the paired rows are exactly those of the whole slide, at a cost that does not grow
with it.
"""

from dataclasses import dataclass

import numpy as np
import torch

from magnet_core.losses import Labels
from magnet_core.model.batch import Context, Subgraph
from train.dataset import LevelData, Slide

# N fine rows, M context rows, k neighbours, E edges, P panel genes


@dataclass(frozen=True)
class Batch:
    """One subgraph of a slide, on a device: its fine rows, the graph around them, and the labels of all its nodes.

    `symmetry` is the one its fine pixels are to be turned by; cached features are turned already, where the store
    holds them in every view.
    """

    slide: Slide
    rows: np.ndarray
    symmetry: int
    graph: Subgraph
    labels: Labels

    def __len__(self) -> int:
        return len(self.rows)


def within_hops(edges: np.ndarray, rows: np.ndarray, *, hops: int) -> np.ndarray:
    """Rows reached from `rows` along their neighbours (N, k) in at most `hops` steps, themselves included, sorted."""
    reached = np.unique(rows)
    frontier = reached
    for _ in range(hops):
        frontier = np.setdiff1d(edges[frontier], reached)
        reached = np.union1d(reached, frontier)
    return reached


def edges_among(edges: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Edges of the graph (N, k) with both ends in `rows`, renumbered by position: (2, E), source over target."""
    position = np.full(len(edges), -1, dtype=np.int64)
    position[rows] = np.arange(len(rows))
    sources = position[edges[rows]]  # (n, k)
    targets, kept = np.nonzero(sources >= 0)
    return np.stack([sources[targets, kept], targets])


def build_batch(
    slide: Slide,
    rows: np.ndarray,
    labels: dict[str, np.ndarray | None],
    *,
    hops: int,
    device: torch.device,
    symmetry: int = 0,
) -> Batch:
    """Gather one batch from the store; `hops` is the number of GAT rounds L."""
    contexts: dict[str, Context] = {}
    context_labels: dict[str, torch.Tensor | None] = {}
    for name, level in slide.contexts.items():
        paired = slide.pairs[name][rows]
        context_rows = within_hops(level.edges, paired, hops=hops)
        contexts[name] = _context(level, context_rows, np.searchsorted(context_rows, paired), device, symmetry)
        known = labels[name]
        context_labels[name] = None if known is None else torch.from_numpy(known[context_rows]).to(device)
    edges = torch.from_numpy(edges_among(slide.fine.edges, rows)).to(device)
    fine_labels = labels[slide.fine.name]
    assert fine_labels is not None
    return Batch(
        slide,
        rows,
        symmetry,
        Subgraph(edges, contexts),
        Labels(torch.from_numpy(fine_labels[rows]).to(device), context_labels),
    )


def whole_slide_graph(slide: Slide, device: torch.device) -> Subgraph:
    """Return the graph of all rows of a slide: what predictions are made on."""
    contexts = {
        name: _context(level, np.arange(len(level)), slide.pairs[name], device)
        for name, level in slide.contexts.items()
    }
    edges = edges_among(slide.fine.edges, np.arange(len(slide.fine)))
    return Subgraph(torch.from_numpy(edges).to(device), contexts)


def _context(level: LevelData, rows: np.ndarray, pair: np.ndarray, device: torch.device, symmetry: int = 0) -> Context:
    view = symmetry % level.num_views
    return Context(
        pooled=level.scale(torch.from_numpy(level.pooled(rows, view=view)).to(device)),
        tokens=level.scale(torch.from_numpy(level.tokens(rows, view=view)).to(device)),
        edges=torch.from_numpy(edges_among(level.edges, rows)).to(device),
        pair=torch.from_numpy(pair).to(device),
    )
