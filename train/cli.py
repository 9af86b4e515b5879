"""The command `train`, and its commands by name. Each imports what takes long when it runs."""

from collections.abc import Callable

from magnet_core.commandline import command_line
from train.commands.cv import cv_command
from train.commands.figure import figure_command
from train.commands.fit import fit_command
from train.commands.options import with_staging
from train.commands.plan import plan_command
from train.commands.predict import predict_command
from train.commands.report import report_command
from train.commands.study import study_command
from train.commands.sweep import sweep_command

COMMANDS: dict[str, Callable[..., None]] = {
    "fit": with_staging(fit_command),
    "cv": with_staging(cv_command),
    "study": with_staging(study_command),
    "sweep": with_staging(sweep_command),
    "plan": plan_command,
    "predict": with_staging(predict_command),
    "report": report_command,
    "figure": figure_command,
}

app = command_line("Stage two: train on a feature store, and compare.")
for name, command in COMMANDS.items():
    app.command(name=name)(command)
