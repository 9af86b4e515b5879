"""What a table would take: cells, steps, hours, memory and disk, known before there is a store.

In: the settings of a study, what is asked for, and for how many slides. Out: text with where each figure comes from.
Every slide is taken to be of a patient of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from magnet_core.console import human_bytes
from magnet_core.forecast.options import Budget, as_notes, text_table
from magnet_core.forecast.pace import Pace, on_core, on_gpu, origins, weakest
from magnet_core.forecast.rates import CORE, FROZEN, TRAINING_PASSES, TUNED, Gpu
from magnet_core.levels import SPOT, find_target
from magnet_core.units import BIN_PATCH_UM, SPOT_PATCH_UM, patch_px
from train.studies.plans import ALL_BLOCKS, HIGH_RESOLUTION_ONLY
from train.studies.settings import StudyConfig
from train.systems.table import MAGNET, SYSTEMS, learns_in_epochs, plain_systems

BINS, SPOTS = 6_000, 2_500  # fine rows a slide (paper, section 3), as `extract run` draws them by default
CONTEXT_ROWS = 4_000  # spots and regions of a slide whose labels are held, beside those of bins
HOUR = 3600.0
ENCODERS = {FROZEN: "frozen", TUNED: "fine-tuned"}
FLOAT = 4  # bytes of a label and of a prediction
LEFT_OUT = (
    "choosing genes and reading labels of all training slides, once a cell; plain baselines and noise ceilings; "
    "metrics and intervals; reading over a network; memory of a GPU; waiting in a queue. Rivals count as MagNet, at "
    "their own epochs: published widths on frozen features take longer. Fine-tuned is every parameter "
    "(encoder.mode=full). validation.patience ends trainings sooner. Labels are those of one cell: --jobs N holds N "
    "times as many"
)


@dataclass(frozen=True)
class Request:
    """What is to be made: the systems that learn, as (system, backbone); plain ones beside them; the folds of each."""

    title: str
    learners: Sequence[tuple[str, str]]
    plain: int
    targets: Sequence[int]
    seeds: int
    one_fold: bool = False
    rows: int | None = None

    def rows_of(self, target: int) -> int:
        """Fine rows of a slide."""
        return self.rows or (SPOTS if is_spot(target) else BINS)


@dataclass(frozen=True)
class Sides:
    """Slides of a fold, on average: those of the training side, those held out of them, and those tested."""

    folds: int
    train: float
    held: int
    test: float

    @classmethod
    def of(cls, slides: int, config: StudyConfig) -> "Sides":
        """Cut slides, each of its own patient, into folds."""
        folds = min(config.fit.split.folds or slides, slides)
        test = slides / folds
        train = slides - test
        return cls(folds, train, config.fit.validation.num_patients(int(train)), test)


def is_spot(target: int) -> bool:
    """Whether spots are predicted."""
    return find_target(target).fine == SPOT


def learners_of(study: str, backbone: str, backbones: Sequence[str]) -> tuple[list[tuple[str, str]], int]:
    """Systems that learn, each with its backbone, and the number of plain baselines, of a command or a study."""
    plain = len(plain_systems())
    if study in ("fit", "cv"):
        return [(MAGNET, backbone)], plain
    if study == "baselines":
        return [(system, backbone) for system in SYSTEMS if learns_in_epochs(system)], plain
    if study == "backbones":
        return [(MAGNET, each) for each in backbones], 0
    return [(MAGNET, backbone)] * len(ALL_BLOCKS if study == "blocks" else HIGH_RESOLUTION_ONLY), 0


def rows_learnt(sides: Sides, epochs: int, config: StudyConfig) -> float:
    """Slides' worth of rows that a cell learns from; a row that is only predicted counts as a pass forward of it."""
    validation = config.fit.meant(int(sides.train)).validation
    learnt = epochs * (sides.train - sides.held)
    if validation.refit and validation.holds_out_few(int(sides.train)):
        learnt += epochs * sides.train
    return learnt + (epochs * sides.held + sides.test) / TRAINING_PASSES


def seconds_of(request: Request, slides: int, config: StudyConfig, *, part: str, gpu: Gpu | None) -> Pace:
    """Device seconds of all cells on so many slides, on a GPU or on processor cores."""
    sides, batch = Sides.of(slides, config), config.fit.optim.batch_size
    cells = request.seeds * (1 if request.one_fold else sides.folds)
    paces = []
    for target in request.targets:
        side_px = patch_px(SPOT_PATCH_UM if is_spot(target) else BIN_PATCH_UM)
        for system, backbone in request.learners:
            pace = _pace(part, backbone, side_px, batch=batch, gpu=gpu)
            own = config.fit.optim if system == MAGNET else getattr(config.rivals, system)
            starts_with_heads = part == TUNED and system == MAGNET and config.fit.finetune.epochs > 0
            epochs = config.fit.finetune.epochs if starts_with_heads else own.epochs
            rows = cells * request.rows_of(target)
            paces.append(Pace(rows * rows_learnt(sides, epochs, config) * pace.seconds, pace.kind))
            if starts_with_heads:
                heads = _pace(FROZEN, backbone, side_px, batch=batch, gpu=gpu)
                paces.append(Pace(rows * rows_learnt(sides, own.epochs, config) * heads.seconds, heads.kind))
    return Pace(sum(pace.seconds for pace in paces), weakest(pace.kind for pace in paces))


def _pace(part: str, backbone: str, side_px: int, *, batch: int, gpu: Gpu | None) -> Pace:
    return on_gpu(gpu, part, backbone, side_px, batch=batch) if gpu else on_core(part, backbone, side_px)


def render_plan(request: Request, config: StudyConfig, budget: Budget) -> str:
    """Return all that `train plan` says."""
    fit = config.fit
    backbones = list(dict.fromkeys(backbone for _, backbone in request.learners))
    title = (
        f"{request.title}: {len(request.learners)} learnt and {request.plain} plain, {', '.join(backbones)}, targets "
        f"{', '.join(map(str, request.targets))} µm, seeds {request.seeds}, MagNet for {fit.optim.epochs} epochs in "
        f"batches of {fit.optim.batch_size}"
    )
    side_px = patch_px(SPOT_PATCH_UM if all(map(is_spot, request.targets)) else BIN_PATCH_UM)
    notes = origins(budget.gpu, (TUNED, FROZEN), backbones, side_px)
    tables = (
        f"{title}\n{cell_table(request, config, budget)}",
        f"The time of what is learnt\n{time_table(request, config, budget)}",
    )
    return "\n\n".join((*tables, as_notes([*notes, f"left out: {LEFT_OUT}"])))


def cell_table(request: Request, config: StudyConfig, budget: Budget) -> str:
    """Cells, steps, labels in memory and predictions on disk."""
    lines = []
    batch, panel = config.fit.optim.batch_size, config.fit.data.panel
    for slides in budget.slides:
        sides = Sides.of(slides, config)
        folds = 1 if request.one_fold else sides.folds
        rows = max(map(request.rows_of, request.targets))
        steps = round((sides.train - sides.held) * -(-rows // batch))
        each = (len(request.learners) + request.plain) * request.seeds
        tested = sum(map(request.rows_of, request.targets)) * each * folds * sides.test
        labels = sides.train * (rows + CONTEXT_ROWS) * panel * FLOAT
        lines.append(
            [
                f"{slides:,}", str(folds), f"{each * folds * len(request.targets):,}", f"{steps:,}",
                human_bytes(labels), human_bytes(tested * panel * FLOAT),
            ]
        )  # fmt: skip
    headings = ["slides", "folds", "cells", "steps an epoch", "labels in memory", "predictions on disk"]
    return text_table(headings, lines)


def time_table(request: Request, config: StudyConfig, budget: Budget) -> str:
    """Hours with frozen and with fine-tuned encoders, on processor cores and on GPUs."""
    lines = []
    for slides in budget.slides:
        for part in (FROZEN, TUNED):
            for device, gpu in ((CORE, None), (budget.gpu.title, budget.gpu)):
                pace = seconds_of(request, slides, config, part=part, gpu=gpu)
                cells = budget.cells(pace.seconds / HOUR, is_gpu=gpu is not None)
                lines.append([f"{slides:,}", ENCODERS[part], device, pace.kind, *cells])
    return text_table(["slides", "encoder", "on", "pace", *budget.headings], lines, words=4)
