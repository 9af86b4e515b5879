"""No system sees a test slide's counts before its prediction, whatever it is and wherever it might keep them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn

from cache.store import Store
from tests.train.setting import config
from train import pipeline
from train.data.fold_choice import choose_folds
from train.data.fold_sides import FoldSides
from train.data.slide import LevelData, Slide
from train.pipeline import run_cells
from train.settings.rivals import (
    BLEEPConfig,
    EGNConfig,
    His2STConfig,
    HisToGeneConfig,
    STNetConfig,
    TriplexConfig,
)
from train.studies.cell import Cell
from train.studies.plans import Planner
from train.studies.settings import StudyConfig
from train.systems.base import System
from train.systems.table import SYSTEMS, rivals_config

MARKER = 777_777
SMALL = rivals_config(
    st_net=STNetConfig(epochs=1),
    egn=EGNConfig(epochs=1, width=16, depth=2, heads=2, mlp=16),
    histogene=HisToGeneConfig(epochs=1, width=16, depth=1, heads=2, mlp=16),
    bleep=BLEEPConfig(epochs=1, width=16),
    his2st=His2STConfig(epochs=1, width=16, depth=1, heads=2, mlp=16, views=1, pixel_side=28, sage_layers=1),
    triplex=TriplexConfig(epochs=1, width=16, heads=2, mlp=16, neighbour_layers=1, global_layers=1),
)


def state_of(found: Any, seen: set[int]) -> Iterator[np.ndarray]:
    """Every array that can be reached from an object; slides that it holds are looked at by the caller."""
    if id(found) in seen or isinstance(found, str | bytes | int | float | torch.device | type):
        return
    seen.add(id(found))
    if isinstance(found, np.ndarray):
        yield found
    elif isinstance(found, torch.Tensor):
        yield found.detach().cpu().numpy()
    elif sparse.issparse(found):
        yield from (found.data, found.indices, found.indptr)
    elif isinstance(found, dict):
        for value in found.values():
            yield from state_of(value, seen)
    elif isinstance(found, list | tuple | set | frozenset):
        for value in found:
            yield from state_of(value, seen)
    elif isinstance(found, Slide):
        assert not found.slide_id.startswith("S2"), "a system holds a test slide"
    elif isinstance(found, nn.Module) or hasattr(found, "__dict__"):
        for value in vars(found).values():
            yield from state_of(value, seen)
    if callable(found) and getattr(found, "__closure__", None):
        for part in found.__closure__ or ():
            yield from state_of(part.cell_contents, seen)


def computed(
    store: Store, runs: Path, system: str, target: int, monkeypatch: pytest.MonkeyPatch, *, marked: bool
) -> tuple[list[np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """State after prediction, predictions and error by gene of one system on the fold that tests S2."""
    built: list[System] = []
    states: list[np.ndarray] = []
    build, truth_of, blocks_of = pipeline.build_system, FoldSides.truth, LevelData.count_blocks

    def watched_build(cell: Cell, folder: Path, **options: Any) -> System:
        built.append(build(cell, folder, **options))
        return built[-1]

    def watched_truth(sides: FoldSides) -> dict[str, np.ndarray]:
        states.extend(np.array(each) for each in state_of(built[-1], set()) if each.dtype.kind in "fiu")
        return truth_of(sides)

    def marked_blocks(level: LevelData, num_genes: int) -> Iterator[tuple[slice, sparse.csr_matrix]]:
        for rows, counts in blocks_of(level, num_genes):
            if level._geometry.path.parent.name == "S2":
                counts.data = np.full_like(counts.data, MARKER)
            yield rows, counts

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "build_system", watched_build)
        patched.setattr(FoldSides, "truth", watched_truth)
        if marked:
            patched.setattr(LevelData, "count_blocks", marked_blocks)
        settings = config(store, runs, "encoder.mode=frozen", "optim.epochs=1", f"data.target={target}")
        study = StudyConfig(fit=settings, rivals=SMALL)
        folds = [fold for fold in choose_folds(study.fit, None) if fold.test == ("S2",)]
        cells = Planner(study, folds).cells(system, settings)
        results = run_cells(cells, runs)
        assert results.faults == {}
    (result,) = results.cells.values()
    return states, {"S2": np.asarray(result.prediction("S2"))}, result.genes["mse"].to_numpy()


@pytest.mark.parametrize(("system", "target"), [*((system, 8) for system in SYSTEMS), ("magnet", 55), ("triplex", 55)])
def test_a_marker_in_the_counts_of_a_test_slide_leaves_no_trace_in_a_system(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, target: int
) -> None:
    plain, predictions, errors = computed(small_store, tmp_path / "a", system, target, monkeypatch, marked=False)
    marked, again, errors_then = computed(small_store, tmp_path / "b", system, target, monkeypatch, marked=True)
    np.testing.assert_array_equal(predictions["S2"], again["S2"])
    assert np.abs(errors_then - errors).max() > 0.1  # the marker was there, and the scoring that comes last saw it
    assert len(plain) == len(marked) > 0
    for one, other in zip(plain, marked, strict=True):
        np.testing.assert_array_equal(one, other)
        assert not (other == MARKER).any()
