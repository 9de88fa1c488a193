"""Builders for the tests of the command line: `autoseq` in this process and as a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.worker.serving import DEADLINE_S
from worker.cli.main import app
from worker.settings import settings

SHORT = "name: short\ncontext:\n  - text: A cat\nnum_images: 2\nthink: true\n"
LONG = SHORT + "image:\n  num_timesteps: 1000\n"
CLOSED = "redis://127.0.0.1:1/0"
"""An address where no Redis is."""


class Shell:
    """Runs commands in a folder, with settings of its own."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.patch = patch
        patch.chdir(folder)
        self.use({"AUTOSEQ_MODEL": "scripted"})

    def use(self, env: Mapping[str, str]) -> None:
        for name in [name for name in os.environ if name.startswith("AUTOSEQ_")]:
            self.patch.delenv(name)
        for name, value in env.items():
            self.patch.setenv(name, value)
        settings.cache_clear()

    def __call__(self, *arguments: str) -> Result:
        """A command in this process."""
        return CliRunner().invoke(app, list(arguments), prog_name="autoseq")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A command as a process of its own."""
        command = [sys.executable, "-m", "worker.cli.main", *arguments]
        pipe = subprocess.PIPE
        # A shell starts what runs in its background with Ctrl-C ignored, and a child inherits that.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True, cwd=self.folder)
        finally:
            signal.signal(signal.SIGINT, before)

    def recipe(self, text: str, name: str = "mine.yaml") -> str:
        (self.folder / name).write_text(text)
        return name


def lines_until(process: subprocess.Popen[str], words: str) -> list[str]:
    """The lines that the process prints up to the one with `words`; all of them when none has."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            break
    return lines


def end_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code of a process, and the rest of what it prints."""
    output, _ = process.communicate(timeout=DEADLINE_S)
    return process.returncode, output


def said(result: Result, *, code: int = 0) -> str:
    """What a command printed on stdout; it left with `code`."""
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout


def one_error(result: Result, *, code: int) -> str:
    """The one line of error that a command left with."""
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.stderr
    lines: Sequence[str] = result.stderr.splitlines()
    assert len(lines) == 1, lines
    return lines[0]
