"""A batch: fine rows of one slide, the edges among them, and the spots and regions they need.

The context rows of a batch are those paired with its fine rows plus everything within L hops of these on the level's
own graph, so that predictions at the paired rows are exactly those of the whole slide, at a cost that does not grow
with it. With a halo of L hops the same holds for the fine rows.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from magnet_core.device import to_device
from magnet_core.grid import Around
from magnet_core.losses import Labels
from magnet_core.model import MagNet
from magnet_core.model.batch import Context, Subgraph
from magnet_core.ranks import ranks
from train.data.labels import LevelLabels, fine_labels
from train.data.slide import LevelData, Slide

# N fine rows, n of one process, M context rows, k neighbours, E edges, P panel genes, p pixels, D features


@dataclass(frozen=True)
class SubgraphSpec:
    """What a model needs of a slide around some fine rows.

    hops            rounds L of its graph attention
    contexts        names of the context levels it reads
    halo            hops of neighbours that join the fine rows, as context without loss
    whole_contexts  every row of the contexts, for a model whose attention runs over all of them
    pixels          the fine rows as pixels to be encoded, rather than as cached features
    """

    hops: int
    contexts: tuple[str, ...]
    halo: int = 0
    whole_contexts: bool = False
    pixels: bool = True

    @classmethod
    def to_train(cls, model: MagNet, *, halo: int, pixels: bool) -> "SubgraphSpec":
        """Plan for training: contexts are exact, fine rows have the given halo."""
        return cls(model.config.reach, tuple(model.context_dims), halo, pixels=pixels)

    @classmethod
    def to_predict(cls, model: MagNet) -> "SubgraphSpec":
        """Plan for prediction from cached features: exact, whichever rows are predicted together."""
        whole = model.config.attend == "graph"
        return cls(model.config.reach, tuple(model.context_dims), model.config.reach, whole, pixels=False)


@dataclass(frozen=True)
class Batch:
    """One subgraph of a slide, on a device.

    rows      (N,) the fine rows, sorted, those of the halo among them
    fine      cached features (N, F), or (n, p, p, 3) uint8 pixels: of all rows, or of this process's share of them
    symmetry  how the pixels are to be turned; cached features are turned already, if the store has every view
    labels    of all nodes; NaN for fine rows of the halo
    """

    slide: Slide
    rows: np.ndarray
    fine: Tensor
    symmetry: int
    graph: Subgraph
    labels: Labels

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        return f"slide '{self.slide.slide_id}', rows {self.rows[0]} to {self.rows[-1]}"


def within_hops(edges: np.ndarray, rows: np.ndarray, *, hops: int) -> np.ndarray:
    """Return `rows` and all rows within `hops` steps of them along the neighbours (N, k), sorted."""
    reached = np.unique(rows)
    frontier = reached
    for _ in range(hops):
        frontier = np.setdiff1d(edges[frontier], reached)
        reached = np.union1d(reached, frontier)
    return reached


def edges_among(edges: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Edges of the graph (N, k) with both ends in sorted `rows`, renumbered by position: (2, E), source over target.

    The cost grows with the number of rows, not with the slide.
    """
    sources = edges[rows]  # (n, k)
    position = np.searchsorted(rows, sources).clip(max=len(rows) - 1)
    targets, kept = np.nonzero(rows[position] == sources)
    return np.stack([position[targets, kept], targets])


def build_batch(
    slide: Slide,
    rows: np.ndarray,
    labels: LevelLabels,
    *,
    spec: SubgraphSpec,
    device: torch.device,
    symmetry: int = 0,
) -> Batch:
    """Gather the subgraph of some fine rows, with their labels, from the store."""
    nodes = within_hops(slide.fine.edges, rows, hops=spec.halo)
    graph, context_rows = gather_graph(slide, nodes, spec=spec, device=device, symmetry=symmetry)
    if spec.pixels:
        fine = to_device(torch.from_numpy(slide.fine.pixels(ranks().share(nodes))), device)
    else:
        fine = slide.fine.features("fine", nodes, view=symmetry, device=device)
    return Batch(slide, nodes, fine, symmetry, graph, _labels(slide, labels, rows, nodes, context_rows, device=device))


def gather_graph(
    slide: Slide, nodes: np.ndarray, *, spec: SubgraphSpec, device: torch.device, symmetry: int = 0
) -> tuple[Subgraph, dict[str, np.ndarray]]:
    """Return the graph around sorted fine rows, and the rows of each context level in it."""
    contexts: dict[str, Context] = {}
    rows_of: dict[str, np.ndarray] = {}
    for name in spec.contexts:
        level = slide.contexts[name]
        paired = slide.pairs[name][nodes]
        rows = np.arange(len(level)) if spec.whole_contexts else within_hops(level.edges, paired, hops=spec.hops)
        around = slide.around[name].of(nodes)
        contexts[name] = _context(level, rows, paired, around, device=device, symmetry=symmetry)
        rows_of[name] = rows
    return Subgraph(to_device(torch.from_numpy(edges_among(slide.fine.edges, nodes)), device), contexts), rows_of


def _labels(
    slide: Slide,
    labels: LevelLabels,
    rows: np.ndarray,
    nodes: np.ndarray,
    context_rows: dict[str, np.ndarray],
    *,
    device: torch.device,
) -> Labels:
    """Return the labels of all nodes; those of the halo, which are not among `rows`, are NaN."""
    slide_labels = fine_labels(slide, labels)
    fine = np.full((len(nodes), slide_labels.shape[1]), np.nan, dtype=np.float32)
    fine[np.searchsorted(nodes, rows)] = slide_labels[rows]
    contexts: dict[str, Tensor | None] = {}
    for name, rows_of_level in context_rows.items():
        level = labels[name]
        contexts[name] = None if level is None else to_device(torch.from_numpy(level[rows_of_level]), device)
    return Labels(to_device(torch.from_numpy(fine), device), contexts)


def _context(
    level: LevelData, rows: np.ndarray, paired: np.ndarray, around: Around, *, device: torch.device, symmetry: int
) -> Context:
    """Return features of sorted `rows` (M,), and tokens of the few that fine rows (N,) see."""
    with_tokens, seen = np.unique(around.rows, return_inverse=True)
    blends = around.rows.shape[1] > 1
    return Context(
        pooled=level.scale(level.features("pooled", rows, view=symmetry, device=device)),
        tokens=level.scale(level.features("tokens", with_tokens, view=symmetry, device=device)),
        edges=to_device(torch.from_numpy(edges_among(level.edges, rows)), device),
        pair=to_device(torch.from_numpy(np.searchsorted(rows, paired)), device),
        seen=to_device(torch.from_numpy(seen.reshape(around.rows.shape)), device),
        weights=to_device(torch.from_numpy(around.weights), device) if blends else None,
    )
