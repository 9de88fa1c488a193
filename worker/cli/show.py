"""`autoseq show`."""

from worker.cli.arguments import Json, RunOrLast
from worker.cli.boundary import print_json
from worker.cli.connection import find_run, open_client

# ruff: noqa: PLC0415 - imported when the command runs, so that --help and completion are quick


def show(run: RunOrLast = None, *, as_json: Json = False) -> None:
    """Show a run's state, its texts, and links to its images."""
    from worker.cli.views.console import screen
    from worker.cli.views.tables import artifact_lines, state_lines
    from worker.client.lookup import look_up

    with open_client() as client:
        found = look_up(client, find_run(client, run))
        if as_json:
            print_json(found.to_data())
            return
        screen().print(state_lines(found.state), soft_wrap=True)
        if found.artifacts:
            screen().print()
            screen().print(artifact_lines(found.artifacts, found.journal), soft_wrap=True)
