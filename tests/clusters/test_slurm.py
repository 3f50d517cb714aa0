"""Sweeps as job arrays of a real SLURM: what it ends goes on by itself and gives the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clusters.conftest import MINUTE, SLURM, results
from tests.clusters.slurm import Cluster
from tests.sweeps.conftest import LONG, QUICK, Shell

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]

RATES = "optimizer.learning_rate=1e-3,2e-3"


def test_both_members_of_an_array_are_ended_and_go_on(shell: Shell, cluster: Cluster) -> None:
    """One by the signal that submitit asks for, one by SLURM, for a job of a partition with a higher priority."""
    with shell.sweeping(*SLURM, *QUICK, *MINUTE, RATES) as sweep:
        sweep.until(lambda: len(shell.logged()) == 2 and all(size > 1000 for size in shell.logged().values()))
        first, second = cluster.running()
        cluster.runs("scancel", "--signal=USR2", first)
        sweep.until(lambda: len(cluster.waiting()) == 1)
        cluster.runs("sbatch", "--partition=urgent", "--exclusive", "--nodes=2", "--wrap=true", "--output=/dev/null")
        sweep.until(lambda: second in cluster.waiting())
        said = [record["reason"] for record in shell.records()]
        cluster.start_soon()
        assert sweep.process.wait(400) == 0, sweep.output()
    assert sorted(said) == [
        f"{name} received: saved; it goes on when its job starts again" for name in ("SIGTERM", "SIGUSR2")
    ]
    for line in shell.ranking():
        run = shell.folder / "runs" / "quickstart" / Path(line["folder"]).name
        assert len((run / "sessions.jsonl").read_text().splitlines()) > 2, "it went on in another process"
    interrupted = results(shell.folder / "runs")
    (shell.folder / "runs").rename(shell.folder / "under_slurm")
    done = shell.starts("-m", *QUICK, *MINUTE, RATES)
    assert done.code == 0, done.err
    assert results(shell.folder / "runs") == interrupted


def test_the_time_limit_ends_a_member_for_good_when_it_has_come_too_often(shell: Shell, cluster: Cluster) -> None:
    """submitit takes a signal for the time limit where that is ten minutes or less."""
    limits = ("hydra.launcher.timeout_min=10", "hydra.launcher.max_num_timeout=1")
    with shell.sweeping(*SLURM, *limits, *QUICK, *LONG, "seed=7") as sweep:
        sweep.until(lambda: sum(shell.logged().values()) > 500)
        cluster.runs("scancel", "--signal=USR2", *cluster.running())
        sweep.until(lambda: cluster.waiting())
        (size,) = shell.logged().values()
        cluster.start_soon()
        sweep.until(lambda: sum(shell.logged().values()) > size)
        cluster.runs("scancel", "--signal=USR2", *cluster.running())
        assert sweep.process.wait(200) == 130, sweep.output()
    assert "SIGUSR2 received: saved. Job not requeued because: timed-out too many times" in sweep.output()
    assert cluster.running() == cluster.waiting() == []


def test_what_is_cancelled_ends_and_ctrl_c_empties_the_queue(shell: Shell, cluster: Cluster) -> None:
    """Of three members that run one after another the first is cancelled, the second saves, the third never begins."""
    words = (*SLURM, "hydra.launcher.array_parallelism=1", *QUICK, *LONG, "seed=1,2,3")
    with shell.sweeping(*words) as sweep:
        sweep.until(lambda: sum(shell.logged().values()) > 500)
        cluster.runs("scancel", *cluster.running())
        sweep.until(lambda: len(shell.training()) == 1 and len(shell.records()) == 2)
        assert sweep.ctrl_c() == 130, sweep.output()
    first, second = sorted(shell.records(), key=lambda record: record["overrides"])
    assert "is no longer in SLURM's queue (cancelled?)" in first["reason"]
    assert second["reason"].startswith("SIGTERM received: stopped after step")
    for record in (first, second):
        assert record["state"] == "interrupted"
        assert list(record["folder"].glob("checkpoints/*/checkpoint.json")), "it saved"
    last = sweep.output().splitlines()[-1]
    assert last.startswith("error: SIGINT: sweep stopped; 0 of 3 members are done, 0 failed"), sweep.output()
    assert cluster.running() == cluster.waiting() == []
