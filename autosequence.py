"""The command `autoseq`, and the check that no other program's module shadows one of autosequence's."""

import sys
from importlib.util import find_spec
from pathlib import Path

MODULES = ("worker", "core", "storage", "recipes")
HOME = Path(__file__).resolve().parent


def check_origin() -> str:
    """The folder of autosequence's modules. Raises ImportError if Python finds one of them elsewhere.

    Their names are common: if a Django project's folder comes first, its `core.py` is imported instead.
    """
    for name in MODULES:
        spec = find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or origin.parent != HOME / name:
            raise ImportError(
                f"autosequence needs its module {name!r} from {HOME}, but Python finds {origin or 'none'} first: run "
                "autosequence in an environment of its own and from another folder; a program with a module of that "
                "name can submit runs over HTTP or with Celery's send_task"
            )
    return str(HOME)


def main() -> None:
    """Run the command line. Report a shadowed module as one line on stderr."""
    try:
        check_origin()
    except ImportError as error:
        sys.stderr.write(f"autoseq: {error}\n")
        raise SystemExit(3) from None  # ExitCode.SERVICE_DOWN, which can't be imported here
    from worker.cli.main import main as autoseq  # noqa: PLC0415 - only after the check

    autoseq()
