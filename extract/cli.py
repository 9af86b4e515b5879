"""The command `extract`: synth, inspect, doctor, backbones, plan, run. Each imports what takes long, when it runs."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from extract.config import RunConfig, load_run
from extract.forecast.cli import plan_command
from extract.options import (
    SHEET,
    BackboneOption,
    BatchSizeOption,
    BinsOption,
    CompileOption,
    DeviceOption,
    OwnOption,
    PixelsOption,
    PrecisionOption,
    RecipeOption,
    SamplesOption,
    SamplingOption,
    SeedOption,
    SetOption,
    SlideOption,
    SpotsOption,
    StainOption,
    StoreOption,
    TargetsOption,
    TokensOption,
    ViewsOption,
    WeightsOption,
    WeightsSha256Option,
    WorkersOption,
    split_targets,
)
from extract.synthetic.config import SynthConfig
from magnet_core.commandline import command_line
from magnet_core.console import importing
from magnet_core.engine.options import Spread, spread_by_options
from magnet_core.errors import MagnetError

if TYPE_CHECKING:
    from extract.pipeline import RunSummary
    from extract.plan import RunPlan

app = command_line("Stage one: from whole-slide images and counts to a feature store.")
app.command(name="plan")(plan_command)


@app.command()
def synth(
    directory: Annotated[Path, typer.Argument(help="Folder to write the data set into.")],
    slides: Annotated[int, typer.Option(help="Number of slides.")] = 4,
    seed: Annotated[int, typer.Option(help="Every byte depends on it.")] = 0,
    size_mm: Annotated[float, typer.Option(help="Side of the imaged square; a real Visium HD area is 6.5.")] = 2.0,
    genes: Annotated[int, typer.Option(help="Number of genes.")] = 1000,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a data set that is there.")] = False,
) -> None:
    """Write a synthetic Visium HD data set in Space Ranger's layout, with known truth."""
    if (directory / "samples.csv").exists() and not overwrite:
        raise MagnetError(
            directory, expected="a new folder", found="one with samples.csv", remedy="name another, or pass --overwrite"
        )
    given = {"slides": slides, "seed": seed, "size_mm": size_mm, "genes": genes}
    config = SynthConfig.build(given, where=lambda name: f"--{name.replace('_', '-')}")
    with importing():
        from extract.synthetic.dataset import synthesise

    sheet = synthesise(directory, config)
    typer.echo(f"wrote {slides} slides; next: extract run --samples {sheet}")


@app.command()
def inspect(
    samples: Annotated[Path, typer.Option(help=SHEET)] = Path("samples.csv"),
    out: Annotated[Path, typer.Option(help="Folder for one overlay picture a slide.")] = Path("inspect"),
    slide: SlideOption = None,
    recipe: RecipeOption = None,
    set_: SetOption = None,
) -> None:
    """Show what there is per slide, and draw bins, spots and regions over it; nothing is extracted."""
    config = load_run(recipe, {}, set_)
    with importing():
        from extract.samples import read_samples, select

    table = read_samples(samples)
    chosen = select(table, slide) if slide else table
    with importing():
        from extract.inspection import inspect_slides

    failed = 0
    for inspection in inspect_slides(chosen, out, config):
        failed += inspection.facts is None
        typer.echo("\n".join(inspection.lines()), err=inspection.facts is None)
    if failed:
        raise typer.Exit(1)


@app.command()
def doctor(
    store: Annotated[Path, typer.Option(help="Folder where the store is or would be.")] = Path("store"),
) -> None:
    """Check versions, GPU, FAISS, OpenSlide, hub access, disk and memory; exit code 1 if something must be mended."""
    with importing():
        from extract import doctor as checks

    raise typer.Exit(checks.main(store))


@app.command(name="run")
@spread_by_options
def run_command(
    *,
    spread: Spread,
    samples: SamplesOption = None,
    store: StoreOption = None,
    backbone: BackboneOption = None,
    weights: WeightsOption = None,
    weights_sha256: WeightsSha256Option = None,
    tokens: TokensOption = None,
    own: OwnOption = None,
    views: ViewsOption = None,
    precision: PrecisionOption = None,
    compile_: CompileOption = None,
    pixels: PixelsOption = None,
    stain: StainOption = None,
    targets: TargetsOption = None,
    sampling: SamplingOption = None,
    bins: BinsOption = None,
    spots: SpotsOption = None,
    seed: SeedOption = None,
    slide: SlideOption = None,
    device: DeviceOption = None,
    batch_size: BatchSizeOption = None,
    workers: WorkersOption = None,
    recipe: RecipeOption = None,
    set_: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show patches, bytes and minutes; write nothing.")] = False,
) -> None:
    """Lay grids, store pixels and counts, run the frozen encoder; resumes, and redoes nothing that is there."""
    options = {
        "samples": ("--samples", samples),
        "store": ("--store", store),
        "embedding.backbone": ("--backbone", backbone),
        "embedding.weights": ("--weights", weights),
        "embedding.weights_sha256": ("--weights-sha256", weights_sha256),
        "embedding.token_grid": ("--tokens", tokens),
        "embedding.own": ("--own", own),
        "embedding.views": ("--views", views),
        "embedding.precision": ("--precision", precision),
        "embedding.seed": ("--seed", seed),
        "compile": ("--compile", compile_),
        "pixels": ("--pixels", pixels),
        "stain": ("--stain", stain),
        "geometry.targets": ("--targets", split_targets(targets)),
        "geometry.sampling": ("--sampling", sampling),
        "geometry.bins": ("--bins", bins),
        "geometry.spots": ("--spots", spots),
        "geometry.seed": ("--seed", seed),
        "slides": ("--slide", slide or None),
        "device": ("--device", device),
        "batch_size": ("--batch-size", batch_size),
        "workers": ("--workers", workers),
    }
    config = load_run(recipe, options, set_)
    with importing():
        from extract.preflight import accept

    accepted = accept(config, spread.shard)
    if not accepted.samples:
        raise typer.Exit(1)
    with importing():
        from extract.pipeline import run
        from extract.plan import plan_run
        from extract.run_summary import write_run_summary

    if dry_run:
        show_plan(plan_run(config, accepted))
        return
    started = datetime.now(UTC)
    summary = run(config, accepted, engine=spread.engine)
    record = write_run_summary(summary, config, started=started)
    report(summary, config, record=record)


@app.command()
def backbones(
    name: Annotated[str | None, typer.Argument(help="One of them: all that is stated of it, with sources.")] = None,
) -> None:
    """List the encoders known by name: training resolution, input, licence, where their weights are."""
    with importing():
        from extract.backbones_table import render_backbone, render_backbones
        from magnet_core.backbones.table import BACKBONES
        from magnet_core.registry import look_up

    if name is None:
        typer.echo(render_backbones(BACKBONES.values()))
    else:
        typer.echo(render_backbone(look_up(BACKBONES, name, where="extract backbones")))


def report(summary: "RunSummary", config: RunConfig, *, record: Path | None) -> None:
    """Say what was done and where it is; exit code 1 if a slide failed."""
    if summary.written:
        typer.echo(f"written: {', '.join(summary.written)}")
    if summary.unchanged:
        typer.echo(f"already there with these settings, nothing to do: {', '.join(summary.unchanged)}")
    recorded = f"record of this run: {record}" if record else "no record of this run, as none can be written there"
    typer.echo(f"store: {config.store} (cache info {config.store}); {recorded}")
    if summary.failed:
        reasons = "above and in the record" if record else "above"
        typer.echo(f"failed: {', '.join(summary.failed)} (the reasons are {reasons})", err=True)
        raise typer.Exit(1)


def show_plan(plan: "RunPlan") -> None:
    """Print a plan; exit code 1 if a slide cannot be extracted, of which the reason was told."""
    typer.echo("\n".join(plan.lines()))
    if plan.failed:
        raise typer.Exit(1)
