"""The command `extract`: synth, inspect, doctor, backbones, run. Each imports what takes long, when it runs."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_core.console import importing
from magnet_core.errors import MagnetError

if TYPE_CHECKING:
    from extract.config import RunConfig
    from extract.pipeline import RunSummary
    from extract.plan import RunPlan

WINDOW = 24  # `GeometryConfig.window`, which takes seconds to import
WHOLE_WINDOWS = (
    f"Windows are kept whole ({WINDOW} × {WINDOW} bins, half as many spots a side), "
    "so a slide gets up to one window more."
)
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def extract() -> None:
    """Stage one: from whole-slide images and counts to a feature store."""


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
    with importing():
        from extract.synthetic import SynthConfig, synthesise

    sheet = synthesise(directory, SynthConfig(slides=slides, seed=seed, size_mm=size_mm, genes=genes))
    typer.echo(f"wrote {slides} slides; next: extract run --samples {sheet}")


@app.command()
def inspect(
    samples: Annotated[Path, typer.Option(help="Sample sheet: slide_id,image,counts,platform,mpp,patient.")] = Path(
        "samples.csv"
    ),
    out: Annotated[Path, typer.Option(help="Folder for one overlay picture a slide.")] = Path("inspect"),
    slide: Annotated[list[str] | None, typer.Option(help="Only this slide; may be repeated.")] = None,
) -> None:
    """Show what there is per slide, and draw bins, spots and regions over it; nothing is extracted."""
    with importing():
        from extract.inspection import inspect_slides
        from extract.samples import read_samples, select

    table = read_samples(samples)
    failed = 0
    for inspection in inspect_slides(select(table, slide) if slide else table, out):
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
def run_command(
    samples: Annotated[Path, typer.Option(help="Sample sheet: slide_id,image,counts,platform,mpp,patient.")] = Path(
        "samples.csv"
    ),
    store: Annotated[Path, typer.Option(help="Store to write to.")] = Path("store"),
    backbone: Annotated[
        str, typer.Option(help="A name of 'extract backbones', timm:NAME or hf-hub:ORG/NAME.")
    ] = "resnet50",
    weights: Annotated[str, typer.Option(help="pretrained, random, or a checkpoint file.")] = "pretrained",
    tokens: Annotated[int, typer.Option(help="Tokens along each side of a context patch; 1: pooled only.")] = 4,
    views: Annotated[int, typer.Option(help="8: features of every symmetry of a patch, for augmentation.")] = 1,
    precision: Annotated[str, typer.Option(help="fp32, bf16, fp16; auto: bf16 on CUDA.")] = "auto",
    compile_: Annotated[bool, typer.Option("--compile", help="Let torch compile the encoder.")] = False,
    targets: Annotated[str, typer.Option(help="Prediction targets in µm, comma-separated.")] = "8,16,55",
    sampling: Annotated[str, typer.Option(help="windows, uniform or all.")] = "windows",
    bins: Annotated[int, typer.Option(help=f"Bins a slide, for each bin size. {WHOLE_WINDOWS}")] = 6000,
    spots: Annotated[int, typer.Option(help=f"Spots a slide. {WHOLE_WINDOWS}")] = 2500,
    seed: Annotated[int, typer.Option(help="For sampling and random weights.")] = 0,
    slide: Annotated[list[str] | None, typer.Option(help="Only this slide; may be repeated.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[
        int, typer.Option(help="Spot patches the encoder takes at a time; larger ones by area.")
    ] = 64,
    workers: Annotated[int, typer.Option(help="Threads that decode the slide.")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show patches, bytes and minutes; write nothing.")] = False,
) -> None:
    """Lay grids, store pixels and counts, run the frozen encoder; resumes, and redoes nothing that is there."""
    with importing():
        from extract.config import EmbeddingConfig, GeometryConfig, RunConfig
        from extract.pipeline import run
        from extract.plan import plan_run
        from extract.run_summary import write_run_summary

    config = RunConfig(
        samples=samples,
        store=store,
        geometry=GeometryConfig(
            targets=parse_targets(targets),
            sampling=sampling,  # type: ignore[arg-type]  # checked by GeometryConfig
            bins=bins,
            spots=spots,
            seed=seed,
        ),
        embedding=EmbeddingConfig(
            backbone=backbone, weights=weights, token_grid=tokens, views=views, precision=precision, seed=seed
        ),
        slides=tuple(slide or ()),
        device=device,
        batch_size=batch_size,
        workers=workers,
        compile=compile_,
    )
    if dry_run:
        show_plan(plan_run(config))
        return
    started = datetime.now(UTC)
    summary = run(config)
    record = write_run_summary(summary, config, started=started)
    report(summary, config, record=record)


@app.command()
def backbones() -> None:
    """List the encoders known by name: architecture, input, licence, where their weights are."""
    with importing():
        from extract.backbones_table import render_backbones
        from magnet_core.backbones import BACKBONES

    typer.echo(render_backbones(BACKBONES.values()))


def parse_targets(text: str) -> tuple[int, ...]:
    """Read '8,16,55' as numbers; GeometryConfig says which there are."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return tuple(sorted(int(part) if part.isdigit() else -1 for part in parts))


def report(summary: "RunSummary", config: "RunConfig", *, record: Path) -> None:
    """Say what was done and where it is; exit code 1 if a slide failed."""
    if summary.written:
        typer.echo(f"written: {', '.join(summary.written)}")
    if summary.unchanged:
        typer.echo(f"already there with these settings, nothing to do: {', '.join(summary.unchanged)}")
    typer.echo(f"store: {config.store} (cache info {config.store}); record of this run: {record}")
    if summary.failed:
        typer.echo(f"failed: {', '.join(summary.failed)} (the reasons are above and in the record)", err=True)
        raise typer.Exit(1)


def show_plan(plan: "RunPlan") -> None:
    """Print a plan; exit code 1 if a slide cannot be extracted."""
    typer.echo("\n".join(plan.lines()))
    for slide_id, error in plan.failed.items():
        typer.echo(f"failed: {slide_id}: {error}", err=True)
    if plan.failed:
        raise typer.Exit(1)
