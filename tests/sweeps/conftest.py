"""Sweeps at a shell: started, interrupted, killed, looked at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import TOY
from tests.pipeline.conftest import Person

QUICK = ("backend=torch", *TOY, "training.evaluate_samples=0")
"""A member in about half a second, beside the imports."""
LONG = ("training.max_steps=100000", "training.evaluate_every=null", "checkpoint.log_every=5")
"""A member that does not end by itself while a test looks."""


class Shell(Person):
    """A person who also sweeps."""

    def records(self) -> list[dict[str, Any]]:
        """What the members of all sweeps say of themselves."""
        files = sorted(self.folder.glob("runs/*/sweep-*/members/*.json"))
        found: list[dict[str, Any]] = []
        for file in (file for file in files if not file.name.endswith(".config.json")):
            record = json.loads(file.read_text("utf-8"))
            place = record["folder"] and (file.parent.parent / record["folder"]).resolve()
            found.append(record | {"folder": place})
        return found

    def training(self) -> list[int]:
        """Pids of members that are between two steps of training."""
        running = [record for record in self.records() if record["state"] == "running" and record["folder"]]
        return [r["pid"] for r in running if (r["folder"] / "metrics.jsonl").exists()]

    def logged(self) -> dict[Path, int]:
        """How much each run has logged: bytes of `metrics.jsonl`."""
        return {file: file.stat().st_size for file in self.folder.glob("runs/*/*/metrics.jsonl")}

    @contextmanager
    def sweeping(self, *words: str) -> Iterator[Sweep]:
        """Start a sweep as the leader of a process group, as a terminal does; nothing of it outlives the block."""
        log = self.folder / "output.txt"
        with log.open("wb") as out:
            command = [sys.executable, "-m", "tunix_rt", *words]
            process = subprocess.Popen(command, cwd=self.folder, stdout=out, stderr=out, start_new_session=True)
        family = psutil.Process(process.pid)
        try:
            yield Sweep(process, log)
        finally:
            left = [family, *family.children(recursive=True)] if family.is_running() else []
            for member in left:
                member.kill()
            process.wait()


class Sweep:
    """A sweep that runs."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self._log = process, log

    def output(self) -> str:
        """What it has printed so far."""
        return self._log.read_text("utf-8")

    def until(self, true: Callable[[], Any]) -> Any:
        """Wait for something; returns it."""
        deadline = time.monotonic() + 120
        while not (found := true()):
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.05)
        return found

    def ctrl_c(self) -> int:
        """SIGINT to the whole group, as a terminal sends it; returns the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(120)


@pytest.fixture
def shell(work: Path, capfd: pytest.CaptureFixture[str]) -> Shell:
    return Shell(work, capfd)
