"""The command `train`, also as `python -m train`. Thin, so that Ctrl-C is heard while the rest is imported."""

from magnet_core.console import run_command


def main() -> None:
    """Run the command line."""
    run_command("train.cli", interrupted="interrupted; run it again to go on from its last checkpoint")


if __name__ == "__main__":
    main()
