"""The commands `train study` and `train cv`: what is asked, and what is shown."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_core.console import importing
from magnet_core.errors import MagnetError
from train.commands.options import (
    BackboneOption,
    Bins,
    DeviceOption,
    RecipeOption,
    RunsOption,
    SetOption,
    StoreOption,
    TargetOption,
    split_names,
    split_numbers,
)
from train.studies.request import Study, StudyRequest
from train.systems.table import SYSTEMS

if TYPE_CHECKING:
    from train.pipeline import TableResult
    from train.studies.settings import StudyConfig

ONLY_FOR = {"--systems": Study.BASELINES, "--backbones": Study.BACKBONES}

FoldsOption = Annotated[str | None, typer.Option(help="Folds to compute, such as 0,2; all of them by default.")]
FinetuneOption = Annotated[bool, typer.Option("--finetune", help="Train encoders from pixels; slow without a GPU.")]
GenesOption = Annotated[str | None, typer.Option(help="Single genes to compare and draw, such as SGPP1,DPEP1.")]
PublishedOption = Annotated[bool, typer.Option("--published", help="Show the paper's figures beside ours.")]
NameOption = Annotated[str | None, typer.Option(help="Name of the study's folder.")]
ProtocolOption = Annotated[str, typer.Option(help="paper, triplex or hest: genes, folds, and how slides add up.")]


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
    asked = StudyRequest(
        store, runs, backbone, device, recipe, tuple(set_ or ()), protocol,
        finetune=finetune,
        folds=split_numbers("--folds", folds),
        genes=split_names("--genes", genes) or (),
        published=published,
    )  # fmt: skip
    part = part_name(targets=targets, systems=systems, backbones=backbones, folds=folds)
    wanted, chosen = split_numbers("--targets", targets), split_names("--systems", systems)
    compared = split_names("--backbones", backbones)
    config = settings_of(asked)
    with importing():
        from train.pipeline import make_table
        from train.studies.tables import plan_paper_table

    name = name or f"study-{study}{part}"
    plan = plan_paper_table(study, asked, config, targets=wanted, systems=chosen, backbones=compared, name=name)
    show(make_table(plan, config, published=asked.published, genes=asked.genes))


def cv_command(
    target: TargetOption = None,
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
    asked = StudyRequest(
        store, runs, backbone, device, recipe, tuple(set_ or ()), protocol,
        finetune=bins is Bins.FINETUNED,
        folds=split_numbers("--folds", folds),
        genes=split_names("--genes", genes) or (),
    )  # fmt: skip
    config = settings_of(asked)
    with importing():
        from train.pipeline import make_table
        from train.studies.tables import plan_cross_validation

    plan = plan_cross_validation(asked, config, target=target, name=name, part=part_name(folds=folds))
    show(make_table(plan, config, genes=asked.genes))


def settings_of(asked: StudyRequest) -> "StudyConfig":
    """Build the settings of a study before anything that takes long is imported."""
    with importing():
        from train.studies.configure import configure

    return configure(asked)


def show(result: "TableResult") -> None:
    """Print a table and where it is; exit code 1 if a cell of it failed."""
    typer.echo(f"\n{result.text}")
    typer.echo(f"tables: {result.folder} (table.txt, .csv, .md, .tex, figure.png, genes.parquet, slides.parquet)")
    if result.faults:
        raise typer.Exit(1)


def part_name(**options: str | None) -> str:
    """What is said of a part, for the name of its folder, so that the whole table stays: '-folds-0-2'."""
    return "".join(f"-{name}-{re.sub('[^0-9A-Za-z_.]+', '-', text)}" for name, text in options.items() if text)
