"""What the shell offers on Tab."""

import os
import subprocess
import sys

import pytest

from tests.worker.shell import CLOSED, SHORT, Shell, said


def offered(shell: Shell, line: str) -> list[str]:
    """What bash offers behind `line`."""
    words = line.split(" ")
    env = {
        **os.environ,
        "_AUTOSEQ_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    command = [sys.executable, "-m", "worker.cli.main"]
    return subprocess.check_output(command, env=env, text=True, cwd=shell.folder).split()


def test_run_ids_are_offered(idle: Shell) -> None:
    idle.recipe(SHORT)
    for run_id in ("alpha-1", "alpha-2", "beta"):
        said(idle("submit", "mine.yaml", "--run-id", run_id))
    assert offered(idle, "autoseq show al") == ["alpha-2", "alpha-1"]
    assert offered(idle, "autoseq diff beta b") == ["beta"]


@pytest.mark.parametrize("address", [CLOSED, "no-address"])
def test_nothing_is_offered_and_nothing_said_when_redis_is_away(address: str, shell: Shell) -> None:
    shell.use({"AUTOSEQ_REDIS_URL": address})
    assert offered(shell, "autoseq show a") == []


def test_recipes_are_offered_by_name_and_by_file(shell: Shell) -> None:
    shell.recipe(SHORT, "magic.yaml")
    shell.recipe("", "magic.txt")
    assert offered(shell, "autoseq run mag") == ["magical-forest", "magic.yaml"]
    (shell.folder / "more").mkdir()
    shell.recipe(SHORT, "more/mine.yml")
    assert offered(shell, "autoseq validate mor") == ["more/"]
    assert offered(shell, "autoseq validate more/") == ["more/mine.yml"]
