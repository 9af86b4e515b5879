"""The command `train sweep`."""

from pathlib import Path
from typing import Annotated

import typer

from magnet_core.console import importing
from magnet_core.engine.options import Spread, spread_whole
from train.commands.options import (
    BackboneOption,
    Bins,
    DeviceOption,
    FoldOption,
    RunsOption,
    StoreOption,
    TargetOption,
    run_options,
)


@spread_whole
def sweep_command(
    *,
    spread: Spread,
    sweep: Annotated[Path, typer.Argument(help="TOML file with [space], see recipes/sweep.toml.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials that the sweep has in the end; given again it goes on.")],
    name: Annotated[str | None, typer.Option(help="Name of the sweep's folder.", show_default="sweep")] = None,
    store: StoreOption = None,
    runs: RunsOption = None,
    target: TargetOption = None,
    backbone: BackboneOption = None,
    fold: FoldOption = None,
    bins: Annotated[Bins | None, typer.Option(help="The bin encoder in trials.", show_default="frozen")] = None,
    refit: Annotated[bool, typer.Option(help="Then fit the best settings with the bin encoder, and test.")] = False,
    storage: Annotated[
        str | None, typer.Option(help="URL of a database, or a journal file, that several commands share.")
    ] = None,
    device: DeviceOption = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting of all trials, a.b=c.")] = None,
) -> None:
    """Search hyper-parameters by their score on held-out training slides; test slides are not looked at."""
    options = run_options(
        fold=fold, name=name, target=target, backbone=backbone, store=store, runs=runs, bins=bins, device=device
    )
    with importing():
        from train.data.fold_choice import check_features, choose_fold, targets_of
        from train.sweep.config import read_sweep
        from train.sweep.storage import parse_storage

    shared = None if storage is None else parse_storage(storage)
    config = read_sweep(sweep, options, set_ or ())
    chosen = choose_fold(config.base)
    targets_of(config.base, [chosen], [config.base.data.target], (), option="--target")
    check_features(config.base, [chosen])
    with importing():
        from train.report.page import write_report
        from train.sweep.run import at_rest, in_words, run_sweep

    result = run_sweep(config, trials=trials, engine=spread.engine, refit=refit, storage=shared)
    typer.echo(f"\n{result.finished} trials; best: trial {result.best}, PCC per gene {result.value:.4f} (validation)")
    typer.echo(in_words(result.values))
    if result.refit is not None:
        typer.echo(f"\nrefit on the test slides of fold {config.base.fold}")
        typer.echo(result.refit.text)
    with at_rest(config, shared):
        write_report([result.folder], result.folder / "report.html")
    study = "study.db" if shared is None else f"study in {shared.place}"
    typer.echo(f"\nsweep: {result.folder} (best.toml for 'train fit --recipe', report.html, trials.csv, {study})")
