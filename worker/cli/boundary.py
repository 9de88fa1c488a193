"""Where the command line meets the shell: JSON and notes out, errors as one clear line and an exit code."""

import json
import sys
from enum import IntEnum
from typing import Any

import typer
from typer.core import TyperGroup


class ExitCode(IntEnum):
    """What `autoseq` says to the shell."""

    OK = 0
    RUN_FAILED = 1
    BAD_INPUT = 2
    """Also of typer's own: a wrong option, an unknown command."""
    SERVICE_DOWN = 3
    CANCELLED = 4
    INTERRUPTED = 130


class Boundary(TyperGroup):
    """The commands, each with its errors explained. What no user can mend keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer's context, whose class moved between its releases
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # whoever read our output has enough; typer ends quietly
        except tuple(_meanings()) as error:
            print_error(_words(error))
            raise typer.Exit(next(code for kind, code in _meanings().items() if isinstance(error, kind))) from None


def print_error(words: str) -> None:
    """Say what is wrong, on stderr."""
    label = typer.style("error:", fg="red", bold=True) if sys.stderr.isatty() else "error:"
    sys.stderr.write(f"{label} {words}\n")


def print_note(words: str) -> None:
    """Tell the user something on stderr, beside the command's own output."""
    sys.stderr.write(f"{words}\n")


def print_json(data: object) -> None:
    """One line of JSON on stdout, at once."""
    sys.stdout.write(json.dumps(data, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def _meanings() -> dict[type[Exception], ExitCode]:
    """What each error means to the shell, the narrow ones first. Imported once there is an error: `--help` is quick."""
    from pydantic import ValidationError  # noqa: PLC0415
    from redis.exceptions import RedisError  # noqa: PLC0415

    from core.model_folder import ModelFolderError  # noqa: PLC0415
    from recipes.faults import RecipeError  # noqa: PLC0415
    from storage.errors import (  # noqa: PLC0415
        InvalidNameError,
        RunNotFoundError,
        StorageError,
        StoreRefusedError,
        StoreUnavailableError,
    )
    from worker.connections import ServiceUnavailableError  # noqa: PLC0415
    from worker.errors import RunCancelled, RunFailed  # noqa: PLC0415
    from worker.history.history import PlaceError  # noqa: PLC0415
    from worker.history.provenance import ProvenanceError  # noqa: PLC0415
    from worker.jobs.inputs import InputError  # noqa: PLC0415
    from worker.local.process import LocalServiceError  # noqa: PLC0415

    bad_input = (
        RecipeError,
        InputError,
        ModelFolderError,
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


def _words(error: Exception) -> str:
    from pydantic import ValidationError  # noqa: PLC0415 (as above)

    if isinstance(error, ValidationError):  # of Settings: recipes are checked by their loader
        return "\n".join(f"AUTOSEQ_{'_'.join(map(str, one['loc'])).upper()}: {one['msg']}" for one in error.errors())
    if isinstance(error, ModuleNotFoundError):
        return f"the Python package {error.name!r} is missing: pip install 'autosequence[model]'"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
