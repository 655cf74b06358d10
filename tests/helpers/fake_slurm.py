"""A fake of Slurm's commands, for what a job script asks of the cluster."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class FakeSlurm:
    """`srun` and `sbatch` in a folder that comes first on the path.

    Args:
        folder: of the commands, and of the script that `sbatch` was last given.
    """

    folder: Path

    @classmethod
    def install(cls, folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
        """Put the commands on the path; `sbatch` accepts what it is given."""
        folder.mkdir()
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        slurm = cls(folder)
        slurm._write("srun", "exit 0")
        slurm.answer("echo Submitted batch job 17")
        return slurm

    def answer(self, command: str) -> None:
        """Let `sbatch` keep the script and then do this."""
        self._write("sbatch", f'cp "$1" {self.folder}/asked.sh; {command}')

    def _write(self, name: str, script: str) -> None:
        (self.folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.folder / name).chmod(0o755)

    def require_asked(self, *wanted: str) -> None:
        """Assert that the script asked for each of these."""
        asked = (self.folder / "asked.sh").read_text()
        for line in wanted:
            assert f"#SBATCH {line}\n" in asked
