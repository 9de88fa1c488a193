"""`autoseq bench`."""

import typer

# ruff: noqa: PLC0415 - imported when the command runs, so that --help and completion are quick

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""How this command is registered: its options are those of `python -m core.bench`, its help included."""


def bench(context: typer.Context) -> None:
    """Measure the engine on this machine; --help lists the options."""
    from core.bench.__main__ import main
    from worker.settings import settings

    model = ["--model_path", settings().model]
    raise typer.Exit(main([*model, *context.args], prog="autoseq bench"))
