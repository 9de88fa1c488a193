"""The output of commands: JSON on stdout, notes on stderr, and errors as one line with an exit code."""

import json
import sys
from enum import IntEnum
from typing import Any

import typer
from typer.core import TyperGroup

from worker.jobs.exact_numbers import exact_numbers

# ruff: noqa: PLC0415 - imported when an error occurs, so that --help and completion are quick


class ExitCode(IntEnum):
    """The exit codes of `autoseq`."""

    OK = 0
    RUN_FAILED = 1
    BAD_INPUT = 2
    """Typer uses the same code for a wrong option or an unknown command."""
    SERVICE_DOWN = 3
    CANCELLED = 4
    INTERRUPTED = 130


class Boundary(TyperGroup):
    """The command group. Prints errors that a user can fix as one line; any other error keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer's context, whose class moved between its releases
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader closed our output; typer exits without a message
        except tuple(_exit_codes()) as error:
            print_error(_message(error))
            raise typer.Exit(next(code for kind, code in _exit_codes().items() if isinstance(error, kind))) from None


def print_error(message: str) -> None:
    """Print an error to stderr."""
    label = typer.style("error:", fg="red", bold=True) if sys.stderr.isatty() else "error:"
    sys.stderr.write(f"{label} {message}\n")


def print_note(message: str) -> None:
    """Print a note to stderr, beside the command's own output."""
    sys.stderr.write(f"{message}\n")


def print_json(data: object) -> None:
    """Print one line of JSON to stdout and flush it. Whole numbers above 2**53 become strings."""
    sys.stdout.write(json.dumps(exact_numbers(data), ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def _exit_codes() -> dict[type[Exception], ExitCode]:
    """The exit code of each error, the narrow classes first."""
    from pydantic import ValidationError
    from redis.exceptions import RedisError

    from core.memory import ModelTooLargeError
    from core.model_folder import ModelFolderError
    from recipes.faults import RecipeError
    from storage.errors import (
        InvalidNameError,
        RunNotFoundError,
        StorageError,
        StoreRefusedError,
        StoreUnavailableError,
    )
    from worker.connections import ServiceUnavailableError
    from worker.errors import RunCancelled, RunFailed
    from worker.history.history import PlaceError
    from worker.history.provenance import ProvenanceError
    from worker.jobs.inputs import InputError
    from worker.local.process import LocalServiceError

    bad_input = (
        RecipeError,
        InputError,
        ModelFolderError,
        ModelTooLargeError,
        InvalidNameError,
        RunNotFoundError,
        PlaceError,
        ProvenanceError,
        ValidationError,
    )
    down = (
        ServiceUnavailableError,
        LocalServiceError,
        RedisError,
        StoreUnavailableError,
        StoreRefusedError,
        ModuleNotFoundError,
    )
    return {
        **dict.fromkeys(bad_input, ExitCode.BAD_INPUT),
        **dict.fromkeys(down, ExitCode.SERVICE_DOWN),
        **dict.fromkeys((RunFailed, StorageError), ExitCode.RUN_FAILED),
        RunCancelled: ExitCode.CANCELLED,
        OSError: ExitCode.BAD_INPUT,
    }


def _message(error: Exception) -> str:
    from pydantic import ValidationError

    if isinstance(error, ValidationError):  # of Settings: the loader of recipes raises RecipeError
        return "\n".join(f"AUTOSEQ_{'_'.join(map(str, one['loc'])).upper()}: {one['msg']}" for one in error.errors())
    if isinstance(error, ModuleNotFoundError):
        return f"the Python package {error.name!r} is missing: pip install 'autosequence[model]'"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
