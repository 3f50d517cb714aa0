"""Several tasks of a real SLURM: they save once, go on, and give the bytes of as many processes of our own."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clusters.conftest import MINUTE, SLURM, results
from tests.clusters.slurm import Cluster
from tests.conftest import ROOT
from tests.pipeline.conftest import made_in
from tests.sweeps.conftest import QUICK, Shell

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def by_itself(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The same run in two processes that it started itself, without interruption."""
    folder = made_in(tmp_path_factory.mktemp("by itself"), *QUICK, *MINUTE, "hardware.devices=2")
    return results(folder / "runs")


def test_a_member_on_two_nodes_goes_on(shell: Shell, cluster: Cluster, by_itself: dict[str, bytes]) -> None:
    with shell.sweeping(*SLURM, "hydra.launcher.nodes=2", *QUICK, *MINUTE, "seed=0") as sweep:
        sweep.until(lambda: sum(shell.logged().values()) > 1000)
        cluster.runs("scancel", "--signal=USR2", *cluster.running())
        sweep.until(cluster.waiting)
        cluster.start_soon()
        assert sweep.process.wait(400) == 0, sweep.output()
    assert "SIGUSR2 received: saved; it goes on when its job starts again" in sweep.output()
    assert results(shell.folder / "runs") == by_itself


def test_the_script_of_the_page_queues_itself_again(
    shell: Shell, cluster: Cluster, by_itself: dict[str, bytes]
) -> None:
    (script,) = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / "clusters.md").read_text("utf-8"), re.M | re.S)
    command = shlex.join([sys.executable, "-m", "tunix_rt", *QUICK, *MINUTE])
    script = re.sub(r"python -m tunix_rt .*", command, script)
    script = re.sub(r"--nodes=.*", "--nodes=1 --ntasks-per-node=2 --gpus-per-node=2", script)
    (shell.folder / "job.sh").write_text(script, "utf-8")
    cluster.runs("sbatch", "--output=log.txt", "job.sh")
    until(lambda: sum(shell.logged().values()) > 1000)
    cluster.runs("scancel", "--signal=USR1", *cluster.running())
    until(cluster.waiting)
    log = (shell.folder / "log.txt").read_text()
    assert log.count("SIGUSR1 received: stopped after step") == 1, log
    cluster.start_soon()
    until(lambda: not cluster.running() and not cluster.waiting())
    assert results(shell.folder / "runs") == by_itself, (shell.folder / "log.txt").read_text()


def test_jax_has_a_task_on_each_node(shell: Shell) -> None:
    toy = [word for word in QUICK if word != "backend=torch"]
    words = ["srun", "--nodes=2", "--ntasks=2", sys.executable, "-m", "tunix_rt", "backend=jax", *toy]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    (first, *_) = (shell.run_folder() / "sessions.jsonl").read_text().splitlines()
    assert json.loads(first)["backend"]["processes"] == "2"


def until(true: Callable[[], Any]) -> None:
    """Wait for something."""
    deadline = time.monotonic() + 400
    while not true():
        assert time.monotonic() < deadline, Path("log.txt").read_text()
        time.sleep(0.2)
