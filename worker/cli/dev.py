"""`autoseq dev`: Redis, S3 and workers on this machine until Ctrl-C."""

import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from worker.cli.arguments import Gpus, gpu_numbers, settings_for
from worker.cli.boundary import print_note

# ruff: noqa: PLC0415 - imported when the command runs, so that --help and completion are quick

if TYPE_CHECKING:
    from worker.local.stack import Stack

LIVENESS_S = 1.0
"""How often the workers are checked."""


def dev(gpus: Gpus = "") -> None:
    """Run Redis, S3 and a worker on this machine until Ctrl-C. Other commands in this folder use them."""
    from worker.local.servers import describe_programs
    from worker.local.stack import stack
    from worker.serve.engine import Engine

    numbers = gpu_numbers(gpus)
    Engine(settings_for()).spec()  # report an unusable model before anything starts
    print_note(f"Starting a worker, {describe_programs()}.")
    with stack(numbers) as up:
        serve(up)


def serve(up: "Stack") -> None:
    """Keep the stack running until Ctrl-C. Other terminals find its services through ENV_FILE.

    Raises LocalServiceError if a worker ends by itself.
    """
    from worker.local.identity import write_private
    from worker.local.stack import ENV_FILE

    write_private(ENV_FILE, "".join(f"{name}={value}\n" for name, value in up.services.env().items()))
    try:
        _print_examples()
        while True:
            time.sleep(LIVENESS_S)
            up.workers.check()
    except KeyboardInterrupt:
        print_note("Stopping. A run in progress resumes at the next start.")
    finally:
        ENV_FILE.unlink(missing_ok=True)


def program(name: str) -> str:
    """The command for a program of this environment in another terminal: its name if it is on PATH, else its path."""
    installed = Path(sys.executable).parent / name
    found = shutil.which(name)
    return name if found and Path(found).resolve() == installed.resolve() else shlex.quote(str(installed))


def _print_examples() -> None:
    from worker.cli.views.console import print_link, screen
    from worker.local.stack import DATA, LOG_FILE

    kwargs = """--kwargs '{"recipe": "magical-forest"}'"""
    code = """from worker import client; print(client.submit('magical-forest'))"""
    examples = (
        ("command line", f"{program('autoseq')} submit magical-forest --watch"),
        ("Celery", f"{program('celery')} -A worker call worker.run {kwargs}"),
        ("Python", f'{program("python")} -c "{code}"'),
    )
    console = screen()
    console.print("Redis, S3 and a worker are running. Use them from another terminal in this folder:")
    for name, command in examples:
        print_link(console, name, command)
    console.print(f"The worker logs to {LOG_FILE}. Ctrl-C stops everything; the data stays in {DATA}/.")
