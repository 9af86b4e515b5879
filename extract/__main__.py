"""The command `extract`, also as `python -m extract`. Thin, so that Ctrl-C is heard while the rest is imported."""

from magnet_core.console import run_command


def main() -> None:
    """Run the command line."""
    run_command("extract.cli", interrupted="interrupted; run again to resume")


if __name__ == "__main__":
    main()
