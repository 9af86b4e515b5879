"""How every command line of the project is built: `--version`, `-v`, `--quiet`, plain help, completion in the shell.

In: what the command is for. Out: a typer app. Imports nothing that takes long, so that help and completion are there
at once.
"""

import functools
import inspect
import tomllib
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from magnet_core.console import speak

PACKAGE = "magnet-hd"

Function = TypeVar("Function", bound=Callable[..., Any])

VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say more, and of an error where it came from.", show_default=False)
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Only results and errors: no bars.", show_default=False)]


class CommandLine(typer.Typer):
    """A typer app whose commands take -v and --quiet, each of them before or after the command's name."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[Function], Function]:
        """Register a command, as `typer.Typer.command` does."""
        register = super().command(name, **options)

        def decorate(function: Function) -> Function:
            register(_with_volume(function))
            return function

        return decorate


def command_line(purpose: str) -> CommandLine:
    """Return an app without commands; `purpose` opens its help, which shows square brackets as they are."""
    app = CommandLine(
        help=purpose, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=True
    )

    @app.callback()
    def common(
        version: Annotated[
            bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
        ] = False,
        verbose: VerboseOption = False,
        quiet: QuietOption = False,
    ) -> None:
        speak(verbose=verbose, quiet=quiet)

    return app


def installed_version() -> str:
    """Version of this package, of a checkout that is not installed the one it would have."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        project = Path(__file__).resolve().parents[1] / "pyproject.toml"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])


def _show_version(is_given: bool) -> None:
    if is_given:
        typer.echo(f"{PACKAGE} {installed_version()}")
        raise typer.Exit


def _with_volume(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options -v and --quiet after those of its own."""

    @functools.wraps(function)
    def command(*arguments: Any, verbose: bool, quiet: bool, **options: Any) -> Any:
        if verbose or quiet:
            speak(verbose=verbose, quiet=quiet)
        return function(*arguments, **options)

    return with_options(command, function, {"verbose": (VerboseOption, False), "quiet": (QuietOption, False)})


def with_options(
    command: Callable[..., Any], function: Callable[..., Any], options: Mapping[str, tuple[Any, Any]], *, less: str = ""
) -> Callable[..., Any]:
    """Let typer see a wrapped command as the function, with some options more, and without the parameter `less`.

    `options` has the annotation and the default of each, by name.
    """
    own = [each for name, each in inspect.signature(function).parameters.items() if name != less]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in options.items()
    ]
    annotations = {name: kind for name, kind in function.__annotations__.items() if name != less}
    command.__annotations__ = {**annotations, **{name: annotation for name, (annotation, _) in options.items()}}
    command.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    return command
