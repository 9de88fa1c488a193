"""A module of another program that hides one of autosequence's is named in one sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autosequence import MODULES, check_origin
from worker.settings import PROJECT

OTHERS = "print('of another program')\n"


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in `folder`, whose modules come first, as those of a current folder or of PYTHONPATH do."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(PROJECT)))}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60)


def test_all_modules_come_from_this_project() -> None:
    assert check_origin() == str(PROJECT)


@pytest.mark.parametrize("name", MODULES)
def test_the_command_names_the_module_that_hides_another(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text(OTHERS)
    done = python(tmp_path, "-c", "from autosequence import main; main()")
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"autoseq: autosequence needs its module {name!r} from {PROJECT}, but Python finds {tmp_path}"
    )


def test_importing_the_client_beside_a_django_project_says_why_it_fails(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "__init__.py").write_text(OTHERS)
    done = python(tmp_path, "-c", "from worker import client")
    assert done.returncode == 1
    assert f"ImportError: autosequence needs its module 'core' from {PROJECT}" in done.stderr.splitlines()[-1]


def test_celery_says_why_it_can_not_load_the_app(tmp_path: Path) -> None:
    (tmp_path / "storage.py").write_text(OTHERS)
    done = python(tmp_path, "-m", "celery", "-A", "worker", "report")
    assert done.returncode != 0
    assert f"autosequence needs its module 'storage' from {PROJECT}" in done.stderr


def test_a_folder_without_python_files_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "storage").mkdir()
    assert python(tmp_path, "-c", "from worker import client").returncode == 0
