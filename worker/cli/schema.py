"""`autoseq schema`."""

import typer

# ruff: noqa: PLC0415 - imported when the command runs, so that --help and completion are quick


def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from recipes.schema import schema_text

    typer.echo(schema_text(), nl=False)
