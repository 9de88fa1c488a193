"""Workers of an earlier release, from the wheel that is kept beside its snapshot."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OldRelease:
    """The unpacked code of a release, which runs with this environment's libraries."""

    code: Path

    @staticmethod
    def unpack(release: Path, into: Path) -> "OldRelease":
        """The release of a folder such as tests/releases/0.1.0, unpacked to a folder that is empty or not there."""
        (wheel,) = release.glob("*.whl")
        with zipfile.ZipFile(wheel) as opened:
            opened.extractall(into)
        return OldRelease(into)

    def env(self, settings: Mapping[str, str]) -> dict[str, str]:
        """This process's environment with `settings` (AUTOSEQ_…) and the old code first.

        The wheel holds no model: set AUTOSEQ_MODEL to a folder, or to `scripted`.
        """
        return {**os.environ, **settings, "PYTHONPATH": str(self.code)}

    def command(self, *arguments: str) -> list[str]:
        """`celery -A worker …`; run it in the folder `code`, since Python looks in its working directory first."""
        return [sys.executable, "-m", "celery", "-A", "worker", *arguments]

    def start_worker(self, settings: Mapping[str, str], log: Path, *options: str) -> subprocess.Popen[bytes]:
        """A worker as the leader of a process group of its own, so that `os.killpg` ends it with its child.

        Like every worker it stops on SIGTERM. It is ready when ` ready.` is in its log.
        """
        command = self.command("worker", "--loglevel", "INFO", *options)
        with log.open("wb") as output:
            return subprocess.Popen(
                command, env=self.env(settings), cwd=self.code, stdout=output, stderr=output, start_new_session=True
            )
