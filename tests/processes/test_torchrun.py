"""torchrun starts the processes, of one machine or of two: the command joins them, and every one ends with its code."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import TOY

WORDS = (*TOY, "backend=torch", "hardware.threads=2")


def torchrun(words: Sequence[str], nodes: int = 2, each: int = 1) -> list[tuple[int, str]]:
    """Exit code and output of each machine's launcher; the 'machines' are on loopback."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    shared = ["--nnodes", str(nodes), "--nproc-per-node", str(each), "--master-addr", "127.0.0.1"]
    processes = []
    for node in range(nodes):
        command = [*shared, "--master-port", str(port), "--node-rank", str(node), "-m", "tunix_rt", *words]
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", *command],
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return [(process.returncode, out) for process in processes for out in [process.communicate(timeout=500)[0]]]


@pytest.mark.acceptance
@pytest.mark.parametrize(("nodes", "each"), [(2, 1), (1, 2)])
def test_a_run_under_torchrun(nodes: int, each: int, work: Path) -> None:
    done = torchrun(WORDS, nodes, each)
    assert [code for code, _ in done] == [0] * nodes, done
    (run,) = work.glob("runs/quickstart/*")
    assert '"processes": "2"' in (run / "environment.json").read_text("utf-8")
    again = torchrun(WORDS, nodes, each)
    assert [code for code, _ in again] == [0] * nodes, again
    assert sum("finished before; nothing is run again" in out for _, out in again) == 1


@pytest.mark.acceptance
def test_a_mistake_is_said_once_and_ends_every_process(work: Path) -> None:
    done = torchrun([*WORDS, "training.max_steps=x"])
    assert [code for code, _ in done] == [1, 1]  # torchrun's own, for any code of a process
    assert [out.count("error: ") for _, out in done] == [1, 0]
    assert all("exitcode  : 2" in out for _, out in done)
    assert not list(work.glob("runs/*"))
