"""The commands `train study` and `train cv`: options to a plan, a plan to a table."""

import json
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cache.store import Store
from magnet_core.errors import MagnetError
from magnet_core.levels import TARGETS
from magnet_core.registry import look_up
from train.config import Bins, DataConfig
from train.dataset import has_target
from train.splits import Fold
from train.studies.cell import MAGNET
from train.studies.config import StudyConfig, load_study_config
from train.studies.plans import ALL_BLOCKS, HIGH_RESOLUTION_ONLY, PLAIN, SYSTEMS, Plan, Planner
from train.studies.protocols import PROTOCOLS
from train.studies.study import choose_folds, run_study


class Study(StrEnum):
    """The paper's tables."""

    BASELINES = "baselines"
    BLOCKS = "blocks"
    LEVELS = "levels"
    BACKBONES = "backbones"


TITLES = {
    Study.BASELINES: "Comparison of systems, as in the paper's Table 1",
    Study.BLOCKS: "What each block of MagNet is worth, as in the paper's Table 2",
    Study.LEVELS: "The high resolution alone, as in the paper's Table 3",
    Study.BACKBONES: "Backbones for MagNet, as in the paper's Table 4",
}
USUAL_TARGETS = {Study.BASELINES: (8, 16, 55), Study.BLOCKS: (16,), Study.LEVELS: (8,), Study.BACKBONES: (8, 16, 55)}
ONLY_FOR = {"--systems": Study.BASELINES, "--backbones": Study.BACKBONES}

StoreOption = Annotated[Path | None, typer.Option(help="Store written by 'extract run'.")]
RunsOption = Annotated[Path | None, typer.Option(help="Folder for results and folds.json.")]
BackboneOption = Annotated[str | None, typer.Option(help="Features of this backbone.")]
FoldsOption = Annotated[str | None, typer.Option(help="Folds to compute, such as 0,2; all of them by default.")]
RecipeOption = Annotated[Path | None, typer.Option(help="TOML file of settings, see recipes/.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="One setting, such as optim.lr=1e-3.")]
FinetuneOption = Annotated[bool, typer.Option("--finetune", help="Train encoders from pixels; slow without a GPU.")]
GenesOption = Annotated[str | None, typer.Option(help="Single genes to compare and draw, such as SGPP1,DPEP1.")]
PublishedOption = Annotated[bool, typer.Option("--published", help="Show the paper's figures beside ours.")]
NameOption = Annotated[str | None, typer.Option(help="Name of the study's folder.")]
ProtocolOption = Annotated[str, typer.Option(help="paper, triplex or hest: genes, folds, and how slides add up.")]
DeviceOption = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]


def study_command(
    study: Annotated[Study, typer.Argument(help="Table 1, 2, 3 or 4 of the paper.")],
    targets: Annotated[str | None, typer.Option(help="Targets in µm, such as 8,16,55.")] = None,
    systems: Annotated[str | None, typer.Option(help=f"Systems: {', '.join(SYSTEMS)}; all by default.")] = None,
    backbones: Annotated[str | None, typer.Option(help="Backbones to compare: resnet50,uni by default.")] = None,
    folds: FoldsOption = None,
    store: StoreOption = None,
    runs: RunsOption = None,
    backbone: BackboneOption = None,
    name: NameOption = None,
    protocol: ProtocolOption = "paper",
    recipe: RecipeOption = None,
    set_: SetOption = None,
    finetune: FinetuneOption = False,
    genes: GenesOption = None,
    published: PublishedOption = False,
    device: DeviceOption = None,
) -> None:
    """Make one of the paper's tables on your slides; what is computed already is not computed again."""
    given = {"--systems": systems, "--backbones": backbones}
    for option, only in ONLY_FOR.items():
        if given[option] is not None and study is not only:
            raise MagnetError(option, expected=f"it with 'train study {only}'", found=study, remedy="leave it out")
    named = {"store": store, "runs": runs, "backbone": backbone, "device": device}
    config = _config(recipe, set_, protocol, finetune=finetune, **named)
    chosen = choose_folds(config, _numbers("--folds", folds))
    planner = Planner(config, chosen)
    wanted = targets_of(config, chosen, _numbers("--targets", targets), USUAL_TARGETS[study])
    part = _part(targets=targets, systems=systems, backbones=backbones, folds=folds)
    labels = {"name": name or f"study-{study}{part}", "title": TITLES[study]}
    if study is Study.BASELINES:
        plan = planner.baselines(wanted, _names("--systems", systems) or SYSTEMS, **labels)
    elif study is Study.BACKBONES:
        plan = planner.backbones(wanted, _names("--backbones", backbones) or ("resnet50", "uni"), **labels)
    else:
        variants = tuple(ALL_BLOCKS) if study is Study.BLOCKS else HIGH_RESOLUTION_ONLY
        plan = planner.blocks(wanted, variants, **labels)
    _run(plan, config, published=published, genes=_names("--genes", genes) or ())


def cv_command(
    target: Annotated[int | None, typer.Option(help="Predict 8 or 16 µm bins, or 55 µm spots.")] = None,
    backbone: BackboneOption = None,
    store: StoreOption = None,
    runs: RunsOption = None,
    name: NameOption = None,
    folds: FoldsOption = None,
    bins: Annotated[Bins, typer.Option(help="Fine-tune the bin encoder, or use its cached features.")] = Bins.FINETUNED,
    protocol: ProtocolOption = "paper",
    recipe: RecipeOption = None,
    set_: SetOption = None,
    genes: GenesOption = None,
    device: DeviceOption = None,
) -> None:
    """Train and test MagNet on every fold, beside the plain baselines; a stopped command goes on where it was."""
    named = {"store": store, "runs": runs, "backbone": backbone, "device": device}
    config = _config(recipe, set_, protocol, finetune=bins is Bins.FINETUNED, **named)
    data: DataConfig = config.fit.data
    target = target or data.target
    chosen = choose_folds(config, _numbers("--folds", folds))
    targets_of(config, chosen, [target], (), option="--target")
    planner = Planner(config, chosen)
    slug = data.backbone.replace(":", "-").replace("/", "-")
    labels = {
        "name": name or f"cv-{slug}-{target}um{_part(folds=folds)}",
        "title": f"Cross-validation, {target} µm, {data.backbone}",
    }
    _run(
        planner.baselines([target], (MAGNET, *PLAIN), **labels),
        config,
        published=False,
        genes=_names("--genes", genes) or (),
    )


def _config(
    recipe: Path | None, settings: Sequence[str] | None, protocol: str, *, finetune: bool, **named: Any
) -> StudyConfig:
    """Build the configuration; without `finetune`, and unless set otherwise, no encoder is trained."""
    keys = {"store": "data.store", "runs": "runs", "backbone": "data.backbone", "device": "device"}
    values = [f"{keys[key]}={json.dumps(value, default=str)}" for key, value in named.items() if value is not None]
    if named["runs"] is not None:
        brought = look_up(PROTOCOLS, protocol, where="--protocol").values.get("split", {})
        folds_file = named["runs"] / Path(brought.get("file", "folds.json")).name
        values.append(f"split.file={json.dumps(str(folds_file))}")
    if not finetune:
        values.append("encoder.mode=frozen")
    config = load_study_config(recipe, [*values, *(settings or ())], protocol=protocol)
    if finetune == (config.fit.encoder.mode == "frozen"):
        raise MagnetError(
            "encoder.mode",
            expected="full, last or lora where encoders are fine-tuned, frozen where not",
            found=config.fit.encoder.mode,
            remedy="change it, or --finetune of 'train study', --bins of 'train cv'",
        )
    return config


def targets_of(
    config: StudyConfig,
    folds: Sequence[Fold],
    asked: list[int] | None,
    usual: Sequence[int],
    *,
    option: str = "--targets",
) -> list[int]:
    """Return the targets asked for, or the usual ones that the store was made for; any that it lacks is an error."""
    store = Store(config.fit.data.store)
    slide_ids = {slide_id for fold in folds for slide_id in (*fold.train, *fold.test)}
    there = [target for target in TARGETS if all(has_target(store, slide_id, target) for slide_id in slide_ids)]
    wanted = list(usual) if asked is None else asked
    found = [target for target in wanted if target in there]
    if not found or (asked is not None and found != asked):
        raise MagnetError(
            option,
            expected=f"some of {', '.join(map(str, there)) or 'none'}, which {store.root} was made for",
            found=", ".join(map(str, wanted)),
            remedy="choose among them, or extract with other --targets",
        )
    return found


def _run(plan: Plan, config: StudyConfig, *, published: bool, genes: Sequence[str]) -> None:
    result = run_study(plan, config, published=published, genes=genes)
    typer.echo(f"\n{result.text}")
    typer.echo(f"tables: {result.folder} (table.txt, .csv, .md, .tex, figure.png, genes.parquet, slides.parquet)")
    if result.faults:
        raise typer.Exit(1)


def _names(option: str, text: str | None) -> tuple[str, ...] | None:
    """Names of a list with commas, each once; None where nothing is said, and an error where nothing is named."""
    if text is None:
        return None
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise MagnetError(
            option, expected="names with commas between", found=f"'{text}'", remedy="leave it out, or name some"
        )
    return names


def _numbers(option: str, text: str | None) -> list[int] | None:
    names = _names(option, text)
    try:
        return None if names is None else list(dict.fromkeys(int(name) for name in names))
    except ValueError as error:
        raise MagnetError(option, expected="whole numbers such as 0,2", found=str(text), remedy="correct it") from error


def _part(**options: str | None) -> str:
    """What is said of a part, for the name of its folder, so that the whole table stays: '-folds-0-2'."""
    return "".join(f"-{name}-{re.sub('[^0-9A-Za-z_.]+', '-', text)}" for name, text in options.items() if text)
