"""Processes of one job: what one does all do, what goes wrong in one ends all, and a signal to any is for all."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.processes import toy

FORKING = multiprocessing.get_context("forkserver")


@dataclass
class Started:
    """The processes of a toy job, by rank."""

    processes: list[Any]
    folder: Path

    def ends(self) -> list[int]:
        """The exit codes."""
        for process in self.processes:
            process.join(60)
        return [process.exitcode for process in self.processes]

    def printed(self, rank: int = 0, name: str = "err") -> str:
        return (self.folder / f"{rank}.{name}").read_text("utf-8")

    def wait_until_begun(self) -> None:
        deadline = time.monotonic() + 60
        while "begun" not in self.printed(0, "out"):
            assert time.monotonic() < deadline and self.processes[0].is_alive(), self.printed()
            time.sleep(0.05)
        time.sleep(0.3)


Start = Callable[..., Started]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the processes of a toy job as a launcher does: `start(work, size, missing)`. The end kills them."""
    FORKING.set_forkserver_preload(["tests.processes.toy"])
    with ExitStack() as opened, socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]

        def start(work: str, size: int = 2, missing: int = 0) -> Started:
            known = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port - 1)}
            processes = []
            for rank in range(size - missing):
                for name in ("out", "err"):
                    (tmp_path / f"{rank}.{name}").touch()
                process = FORKING.Process(target=toy.main, args=(known | {"RANK": str(rank)}, work, tmp_path))
                process.start()
                opened.callback(process.join)
                opened.callback(process.kill)
                processes.append(process)
            return Started(processes, tmp_path)

        yield start


def test_every_process_makes_the_same_calls(start: Start, tmp_path: Path) -> None:
    """Pieces of all processes are answers, files of all are the checkpoint; a setting reaches all."""
    job = start("all_methods", 3)
    assert job.ends() == [0, 0, 0], job.printed()
    seeds = [(2**63 + number) % 97 for number in range(5)]
    answers = [[number, seed, 5] for number, seed in enumerate(seeds)]
    saved = {f"{rank}.saved": "hash" for rank in range(3)}
    assert job.printed(0, "out") == f"{{'loss_sum': 2}} {answers} stop {saved}\n"
    assert [(tmp_path / f"{rank}.saved").read_text() for rank in range(3)] == ["3", "3", "3"]
    assert all((tmp_path / f"{rank}.left").exists() for rank in range(3))


def test_an_error_of_all_is_no_failure_of_one(start: Start, tmp_path: Path) -> None:
    job = start("all_fail_alike")
    assert job.ends() == [0, 0], job.printed()
    assert job.printed(0, "out") == "rank 0 does not like it\n" * 2
    assert (tmp_path / "1.saved").read_text() == "0"


@pytest.mark.parametrize(
    ("work", "code", "message"),
    [
        ("bug", 1, "error: ValueError: a bug (process 1 of 2 on "),
        ("memory", 4, "error: memory is full: lower it (proc"),
    ],
)
def test_what_one_process_raises_is_the_error_of_all(start: Start, work: str, code: int, message: str) -> None:
    """Prevents: nine others wait in a collective until its time is over, and then say that it was."""
    job = start(work)
    assert job.ends() == [code, code]
    shown = job.printed()
    assert message in shown
    assert ("Traceback" in shown) == (work == "bug")
    assert job.printed(1) == ""


def test_a_process_that_is_killed_ends_all(start: Start) -> None:
    job = start("steps", 3)
    job.wait_until_begun()
    job.processes[1].kill()
    before = time.monotonic()
    assert job.ends() == [4, -9, 4]
    assert time.monotonic() - before < 10
    assert "error: process 1 of 3 on " in (shown := job.printed())
    assert "is gone: it was killed, or its machine or the network failed; the same command goes on" in shown


def test_without_a_leader_nobody_stays(start: Start) -> None:
    job = start("steps", 3)
    job.wait_until_begun()
    job.processes[0].kill()
    assert job.ends() == [-9, 1, 1]


def test_a_leader_that_is_killed_while_the_others_start_leaves_none_behind() -> None:
    """They share its standard error, which is closed when the last of them has ended."""
    command = "import os; from tunix_rt.backends.processes import start; start._start(3); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", command], stderr=subprocess.PIPE, timeout=120)
    assert (done.returncode, done.stderr) == (-9, b"")


def test_a_program_may_run_two_commands_after_each_other() -> None:
    """Each has followers of its own, and leaves none."""
    code = (
        "from tunix_rt.backends.processes import start\n"
        "def work():\n    started.append(start.followers(2).processes[0])\n    return int(started[-1].poll() or 0)\n"
        "started = []\n"
        "print([start.in_job(work) for _ in range(2)], [process.poll() for process in started])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"[0, 0] [0, 0]\n", b"")


def test_a_leader_in_a_collective_that_never_ends_is_ended(start: Start, tmp_path: Path) -> None:
    """And the record says why."""
    job = start("stuck")
    assert job.ends() == [1, 1]
    assert "error: ValueError: a bug (process 1 of 2 on " in job.printed()
    assert (tmp_path / "words").read_text().startswith("ValueError: a bug (process 1 of 2 on ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_any_process_saves_once(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    """Copies to all of them are no second signal, which would end the work at once."""
    job = start("steps", 3)
    job.wait_until_begun()
    for rank, pause in ((2, 0.5), (0, 0.0), (1, 0.0)):
        os.kill(job.processes[rank].pid, number)
        time.sleep(pause)
    assert job.ends() == [128 + number] * 3
    assert job.printed().count("stopped after step") == 1
    steps = {(tmp_path / f"{rank}.saved").read_text() for rank in range(3)}
    assert len(steps) == 1


def test_a_signal_while_others_are_awaited_ends_the_job_at_once(start: Start) -> None:
    """A node that starts late: SLURM kills 30 seconds after its signal, and the record has to be written by then."""
    job = start("waits", 2, missing=1)
    job.wait_until_begun()
    before = time.monotonic()
    os.kill(job.processes[0].pid, signal.SIGTERM)
    assert job.ends() == [128 + signal.SIGTERM] and time.monotonic() - before < 20
    assert "stopped before its first stage" in job.printed()


def test_nothing_to_compute_is_the_end_of_all(start: Start) -> None:
    """A run that is finished, an error in the config: followers wait for a leader that never calls them."""
    assert start("nothing", 3).ends() == [7, 7, 7]
