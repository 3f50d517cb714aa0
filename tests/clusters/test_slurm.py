"""Sweeps as job arrays of a real SLURM: what it ends goes on by itself and gives the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clusters.slurm import Cluster
from tests.sweeps.conftest import QUICK, Shell

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(400)]

SLURM = ("-m", "hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1")
MINUTES = (
    "training.max_steps=200",
    "training.evaluate_every=null",
    "checkpoint.log_every=5",
    "checkpoint.save_every=40",
)
"""A member that a test has the time to disturb."""
RATES = "optimizer.learning_rate=1e-3,2e-3"


def test_both_members_of_an_array_are_ended_and_go_on(shell: Shell, cluster: Cluster) -> None:
    """One by the signal that submitit asks for, one as SLURM does it for a job of higher priority."""
    with shell.sweeping(*SLURM, *QUICK, *MINUTES, RATES) as sweep:
        sweep.until(lambda: len(shell.logged()) == 2 and all(size > 1000 for size in shell.logged().values()))
        first, second = running(cluster)
        cluster.runs("scancel", "--signal=USR2", first)
        cluster.runs("scontrol", "requeue", second)
        sweep.until(lambda: len(waiting(cluster)) == 2)
        said = [record["reason"] for record in shell.records()]
        for job in waiting(cluster):
            cluster.runs("scontrol", "update", f"JobId={job}", "StartTime=now")  # SLURM waits two minutes otherwise
        assert sweep.process.wait(200) == 0, sweep.output()
    assert sorted(said) == [
        f"{name} received: saved; it goes on when its job starts again" for name in ("SIGTERM", "SIGUSR2")
    ]
    for line in shell.ranking():
        run = shell.folder / "runs" / "quickstart" / Path(line["folder"]).name
        assert len((run / "sessions.jsonl").read_text().splitlines()) > 2, "it went on in another process"
    interrupted = results(shell)
    (shell.folder / "runs").rename(shell.folder / "under_slurm")
    done = shell.starts("-m", *QUICK, *MINUTES, RATES)
    assert done.code == 0, done.err
    assert results(shell) == interrupted


def running(cluster: Cluster) -> list[str]:
    """Jobs that run."""
    return cluster.runs("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i").split()


def waiting(cluster: Cluster) -> list[str]:
    """Jobs that wait."""
    return cluster.runs("squeue", "--noheader", "--array", "--states=PENDING", "--format=%i").split()


def results(shell: Shell) -> dict[str, bytes]:
    """What each run computed."""
    names = ("model/model.safetensors", "metrics.jsonl", "predictions.jsonl", "metrics.json")
    files = [file for name in names for file in (shell.folder / "runs").glob(f"*/*/{name}")]
    return {str(file.relative_to(shell.folder)): file.read_bytes() for file in files}
