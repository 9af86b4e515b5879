"""The epoch that is kept of few patients: chosen on what is held out, by a first training, and then trained again."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from cache.store import Store
from magnet_core.console import NOTICE
from magnet_core.global_seeds import seed_everything
from tests.train.setting import config
from tests.train.systems.rivals.test_stopping import IN_EPOCHS, SMALL
from train.data import training_side
from train.data.fold_choice import choose_fold
from train.data.fold_sides import open_fold
from train.data.slide import LevelData
from train.data.tissue_blocks import TissueBlocks
from train.data.training_side import HeldOut, TrainingSide
from train.learning import loop
from train.learning.choice import CHOICE, CHOOSING, kept_in_words
from train.learning.loop import end_epoch, training_step
from train.learning.setting import Setting
from train.learning.trained_run import load_run
from train.pipeline import fit, run_cells
from train.settings.fit import FitConfig
from train.studies.cell import Cell, CellResult
from train.systems import magnet
from train.systems.base import System
from train.systems.magnet import MagNetSystem
from train.systems.rivals import learning
from train.systems.table import build_rival

QUICK = ("encoder.mode=frozen", "validation.few=hold_out", "baselines=false")
MARKER = 7e4


class StoppedError(Exception):
    """In place of a power cut."""


@pytest.fixture
def second_is_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three epochs the second is the best, whatever is learnt."""

    def validator(side: TrainingSide, predict: object) -> Callable[[], float] | None:
        scores = iter([0.1, 0.9, 0.4])
        return (lambda: next(scores)) if side.held_out else None

    for module in (magnet, learning):
        monkeypatch.setattr(module, "validator", validator)


def cell_of(system: str, settings: FitConfig) -> CellResult:
    """Compute one cell."""
    cell = Cell(system, settings, choose_fold(settings), SMALL)
    return run_cells([cell], settings.runs, raises=True).cells[cell]


def told_of(folder: Path) -> Mapping[str, Any]:
    told: Mapping[str, Any] = json.loads((folder / "cell.json").read_text())["training"]
    return told


@pytest.mark.usefixtures("second_is_best")
def test_what_is_kept_is_a_training_on_all_slides_after_the_chosen_epoch(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(NOTICE, "magnet_hd")
    settings = config(small_store, tmp_path, *QUICK, "optim.epochs=3", "optim.warmup=0.3", "model.dropout=0.2")
    result = fit(settings).cell()
    told = told_of(result.folder)
    (held_out,) = told["validation_slides"]
    assert (told["validation_scores"], told["kept_epoch"], told["refitted"]) == ([0.1, 0.9, 0.4], 2, True)
    assert len(told["losses"]) == 2
    run = json.loads((result.folder / "run.json").read_text())
    assert {name: run[name] for name in told} == told
    line = f"epoch 2 of 3 kept: best PCC per gene on slide {held_out} (0.900); trained again on all slides"
    assert line in caplog.text
    assert not list(result.folder.glob(f"{CHOOSING}/*.pt"))

    after: list[dict[str, torch.Tensor]] = []

    def watched(trainee: Any, *arguments: Any, **named: Any) -> None:
        end_epoch(trainee, *arguments, **named)
        after.append({name: value.clone() for name, value in trainee.module.state_dict().items()})

    monkeypatch.setattr(loop, "end_epoch", watched)
    seed_everything(settings.seed)
    MagNetSystem(settings, tmp_path / "direct").fit(open_fold(settings).training)  # all three epochs
    kept = load_run(result.folder).predictor.state_dict()
    assert kept.keys() == after[1].keys()
    for name, value in kept.items():
        assert torch.equal(value, after[1][name]), name


@pytest.mark.usefixtures("second_is_best")
def test_without_refit_the_weights_of_the_first_training_are_kept(small_store: Store, tmp_path: Path) -> None:
    settings = config(small_store, tmp_path, *QUICK, "optim.epochs=3", "validation.refit=false")
    result = fit(settings).cell()
    told = told_of(result.folder)
    assert (told["kept_epoch"], told["refitted"], len(told["losses"])) == (2, False, 3)
    assert not (result.folder / CHOOSING).exists()


@pytest.mark.usefixtures("second_is_best")
@pytest.mark.parametrize("system", ["st_net", "his2st"])
def test_a_rival_is_trained_again_as_directly_for_so_many_epochs(
    small_store: Store, tmp_path: Path, system: str
) -> None:
    settings = config(small_store, tmp_path, *QUICK)
    result = cell_of(system, settings)
    told = told_of(result.folder)
    assert (told["kept_epoch"], told["refitted"], len(told["losses"])) == (2, True, 2)
    sides = open_fold(settings)
    title = result.cell.title
    direct = build_rival(system, SMALL, Setting(settings.seed, title=title, epochs=2))
    direct.fit(sides.training)
    (slide,) = sides.test_slides
    np.testing.assert_array_equal(result.prediction(slide.slide_id), direct.predict(slide))


@pytest.mark.parametrize(("system", "num_first"), [("magnet", 8), ("st_net", 6)])
def test_stopped_in_either_training_it_goes_on_and_repeats_nothing(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, num_first: int
) -> None:
    steps: list[str] = []

    def stopping(at: int) -> Callable[..., object]:
        def step(*arguments: Any, **named: Any) -> object:
            if len(steps) == at:
                raise StoppedError
            steps.append("step")
            return training_step(*arguments, **named)

        return step

    def computed(folder: str, *, stop_at: int) -> CellResult:
        monkeypatch.setattr(loop, "training_step", stopping(stop_at))
        return cell_of(system, config(small_store, tmp_path / folder, *QUICK, "compute.checkpoint_minutes=0"))

    whole = computed("whole", stop_at=-1)
    num_steps = len(steps)
    steps.clear()
    for stop_at in (3, num_first + 2):
        with pytest.raises(StoppedError):
            computed("stopped", stop_at=stop_at)
        finished = list(tmp_path.glob(f"stopped/cells/*/{CHOOSING}/{CHOICE}"))
        assert len(finished) == (stop_at > num_first)
    resumed = computed("stopped", stop_at=-1)
    assert len(steps) == num_steps
    (slide_id,) = whole.cell.fold.test
    np.testing.assert_array_equal(whole.prediction(slide_id), resumed.prediction(slide_id))
    assert told_of(whole.folder) == told_of(resumed.folder)


def beside_blocks(store: Store, folder: Path, *settings: str) -> tuple[TrainingSide, FitConfig]:
    """One slide to learn from, of which a small block is held out."""
    wanted = config(store, folder, "encoder.mode=frozen", "optim.epochs=1", *settings)
    side = open_fold(wanted).training
    slide = side.slides[0]
    blocks = TissueBlocks(slide.fine.centres_um[:1], 60.0, 20.0)
    return replace(side, slides=[slide], held_out=[HeldOut(slide, blocks)]), wanted


def with_garbage(side: TrainingSide, monkeypatch: pytest.MonkeyPatch) -> TrainingSide:
    """The same side; no label and no count of what is not learnt from is as it was."""
    (held,) = side.held_out
    slide, blocks = held.slide, held.blocks
    assert blocks is not None
    rng, labels, counts_of = np.random.default_rng(0), {}, LevelData.count_blocks
    for level in (slide.fine, *slide.contexts.values()):
        known = side.labels[slide.slide_id][level.name]
        side_um = 0.0 if level is slide.fine else level.patch_um
        unlearnt = ~blocks.learnt(level.centres_um, side_um=side_um)
        assert unlearnt.any()
        if known is not None:
            garbage = MARKER * rng.normal(size=known.shape).astype(np.float32)
            known = np.where(unlearnt[:, None], garbage, known)
        labels[level.name] = known

    def spoilt(level: LevelData, num_genes: int) -> Iterator[tuple[slice, sparse.csr_matrix]]:
        for rows, counts in counts_of(level, num_genes):
            dense = counts.toarray()
            if level is slide.fine:
                dense[~blocks.learnt(level.centres_um[rows])] = int(MARKER)
            yield rows, sparse.csr_matrix(dense)

    monkeypatch.setattr(LevelData, "count_blocks", spoilt)
    return replace(side, labels={slide.slide_id: labels})


@pytest.mark.parametrize("system", [*IN_EPOCHS, "magnet", "poisson", "spots"])
def test_no_label_of_a_held_out_row_is_learnt_from(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    more = {"poisson": ["loss.likelihood=poisson", "halo=1"], "spots": ["data.target=55"]}.get(system, [])
    side, wanted = beside_blocks(small_store, tmp_path, *more)
    (slide,) = side.slides

    def learnt(side: TrainingSide, folder: str) -> np.ndarray:
        seed_everything(0)
        is_rival = system in IN_EPOCHS
        build: System = (
            build_rival(system, SMALL.changed(**{system: {"epochs": 1}}), Setting())
            if is_rival
            else MagNetSystem(wanted, tmp_path / folder)
        )
        build.fit(side)
        return build.predict(slide)

    clean = learnt(side, "clean")
    with monkeypatch.context() as patched:
        spoilt = learnt(with_garbage(side, patched), "spoilt")
    np.testing.assert_array_equal(clean, spoilt)


def test_of_one_slide_blocks_choose_the_epoch_and_all_of_it_is_learnt_in_the_end(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(small_store, tmp_path, *QUICK)
    fold = choose_fold(settings)
    fold = replace(fold, train=fold.train[:1])

    def draw(points_um: np.ndarray, *_: object, **__: object) -> TissueBlocks:
        return TissueBlocks(points_um[:1], 60.0, 20.0)

    monkeypatch.setattr(training_side, "draw_blocks", draw)
    result = fit(settings, fold=fold).cell()
    told = told_of(result.folder)
    (slide_id,) = fold.train
    assert told["validation_slides"] == []
    assert told["validation_blocks"].keys() == {slide_id}
    assert (len(told["validation_scores"]), told["refitted"]) == (2, True)
    assert kept_in_words(told).startswith(f"epoch {told['kept_epoch']} of 2 kept: best PCC per gene on blocks of slide")


ONE = {"validation_slides": ["S2"], "validation_scores": [0.1, 0.171, 0.1], "kept_epoch": 2}


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (ONE, "epoch 2 of 3 kept: best PCC per gene on slide S2 (0.171)"),
        (
            {**ONE, "refitted": True},
            "epoch 2 of 3 kept: best PCC per gene on slide S2 (0.171); trained again on all slides",
        ),
        (
            {**ONE, "validation_slides": [], "validation_blocks": {"S1": {}, "S3": {}}},
            "epoch 2 of 3 kept: best PCC per gene on blocks of slides S1, S3 (0.171)",
        ),
        ({**ONE, "validation_scores": [None, None], "kept_epoch": 2}, "epoch 2 of 2 kept: no score"),
        ({"why_none": "validation.share=0"}, "last epoch kept: nothing held out (validation.share=0)"),
        ({"validation_slides": [], "kept_epoch": 9}, "last epoch kept: nothing held out"),
    ],
)
def test_the_line_says_which_epoch_was_kept_and_why(told: Mapping[str, Any], says: str) -> None:
    assert kept_in_words(told) == says
