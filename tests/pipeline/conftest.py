"""Whole runs through the command line, at toy size, in a directory of their own."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TOY
from tunix_rt.__main__ import main


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Person:
    """Someone at a shell in an empty directory."""

    folder: Path
    captured: pytest.CaptureFixture[str]

    def types(self, *words: str, stdin: str = "") -> Done:
        """Run the command line in this process: importing a framework takes longer than all else."""
        self.captured.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            code = main(list(words))
        shown = self.captured.readouterr()
        return Done(code, shown.out, shown.err)

    def starts(self, *words: str, timeout: float = 300, env: Mapping[str, str] | None = None) -> Done:
        """Run `python -m tunix_rt` with these words, a process of its own; `env`: more variables."""
        done = subprocess.run(
            [sys.executable, "-m", "tunix_rt", *words],
            cwd=self.folder,
            env=os.environ | dict(env or {}),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def run_folder(self, experiment: str = "quickstart") -> Path:
        """The only run of an experiment."""
        (found,) = (self.folder / "runs" / experiment).glob("*/status.json")
        return found.parent

    def reads(self, name: str, experiment: str = "quickstart") -> Any:
        """A JSON file of that run."""
        return json.loads((self.run_folder(experiment) / name).read_text("utf-8"))

    def sweep(self, experiment: str = "quickstart") -> Path:
        """The folder of the only sweep of an experiment."""
        (found,) = (self.folder / "runs" / experiment).glob("sweep-*")
        return found

    def ranking(self, experiment: str = "quickstart") -> list[dict[str, Any]]:
        """`ranking.json` of that sweep."""
        lines: list[dict[str, Any]] = json.loads((self.sweep(experiment) / "ranking.json").read_text("utf-8"))
        return lines

    def ranked_steps(self) -> dict[str, dict[str, Any]]:
        """The members of `steps_or_answer` in the order of their rank, by their kind of steps."""
        return {member["values"]["dataset.source.steps"]: member for member in self.ranking("steps_or_answer")}


@pytest.fixture
def person(work: Path, capfd: pytest.CaptureFixture[str]) -> Person:
    return Person(work, capfd)


def made_in(folder: Path, *words: str) -> Path:
    """The folder, with what the command leaves in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(list(words)) == 0
    return folder


@pytest.fixture(scope="session")
def quickstart_workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the finished toy run of the quickstart, on torch."""
    return made_in(tmp_path_factory.mktemp("quickstart"), "backend=torch", *TOY)


@pytest.fixture
def trained(quickstart_workplace: Path, work: Path) -> None:
    """As if `backend=torch` and TOY had been typed here: that run is copied into the working directory."""
    shutil.copytree(quickstart_workplace, work, dirs_exist_ok=True)


@pytest.fixture
def toy() -> tuple[str, ...]:
    return TOY
