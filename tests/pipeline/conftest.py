"""Whole runs through the command line, at toy size, in a directory of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TOY


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

    def types(self, *words: str, stdin: str = "", timeout: float = 300) -> Done:
        """Run `python -m tunix_rt` with these words."""
        done = subprocess.run(
            [sys.executable, "-m", "tunix_rt", *words],
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def types_and_kills(self, *words: str, when: Callable[[], bool], number: int = signal.SIGKILL) -> int:
        """Run it and send a signal as soon as `when()` is true; returns the exit code."""
        command = [sys.executable, "-m", "tunix_rt", *words]
        with subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            deadline = time.monotonic() + 120
            while not when() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            assert process.poll() is None, "the run ended before it could be stopped"
            os.kill(process.pid, number)
            return process.wait(120)

    def run_folder(self, experiment: str = "quickstart") -> Path:
        """The only run of an experiment."""
        (found,) = (self.folder / "runs" / experiment).glob("*/status.json")
        return found.parent

    def reads(self, name: str, experiment: str = "quickstart") -> Any:
        """A JSON file of that run."""
        return json.loads((self.run_folder(experiment) / name).read_text("utf-8"))


@pytest.fixture
def person(work: Path) -> Person:
    return Person(work)


@pytest.fixture
def toy() -> tuple[str, ...]:
    return TOY
