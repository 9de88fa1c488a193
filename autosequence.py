"""The command `autoseq`, and the check that no module of another program hides one of autosequence's."""

import sys
from importlib.util import find_spec
from pathlib import Path

MODULES = ("worker", "core", "storage", "recipes")
HOME = Path(__file__).resolve().parent


def check_origin() -> str:
    """The folder that every module of autosequence comes from. Raises ImportError when one comes from elsewhere.

    Other programs use these names too: a Django project's `core.py` is imported instead, if its folder comes first.
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
    """Run the command line. A module that is hidden by another is one line on stderr."""
    try:
        check_origin()
    except ImportError as error:
        sys.stderr.write(f"autoseq: {error}\n")
        raise SystemExit(3) from None  # as worker.cli.boundary.ExitCode has it for a package that is not there
    from worker.cli.main import main as autoseq  # noqa: PLC0415 - it may come from elsewhere until then

    autoseq()
