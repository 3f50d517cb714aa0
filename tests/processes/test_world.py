"""Which process of a job this one is, from what each launcher says in the environment."""

from __future__ import annotations

import os

import pytest

from tunix_rt.backends.processes.world import ALONE, TAKEN, World, first_host, tasks_of_nodes
from tunix_rt.errors import ConfigError

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "node0"}
SRUN = {
    "SLURM_PROCID": "4",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_TASKS_PER_NODE": "3,2",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_JOB_ID": "4097",
    "SLURM_STEP_ID": "2",
}
POD = {"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "t0,t1,t2"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ALONE),
        (TORCHRUN, World(3, 4, 1, 2, "node0", 29500)),
        (TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0"}, ALONE),
        (SRUN, World(4, 5, 1, 2, "gpu07", 61440 + 3)),
        (SRUN | {"MASTER_PORT": "5000", "SLURM_CPUS_PER_TASK": "8"}, World(4, 5, 1, 2, "gpu07", 5000, False)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, ALONE),
        (POD, ALONE),
        (TORCHRUN | {TAKEN: "1"}, ALONE),
        (TORCHRUN | {TAKEN: str(os.getpid())}, World(3, 4, 1, 2, "node0", 29500)),
    ],
)
def test_what_a_launcher_says(environment: dict[str, str], expected: World) -> None:
    """A script of sbatch is no task of srun, and what a process starts is no part of the launcher's job."""
    assert World.from_environment(environment) == expected


def test_a_tpu_pod_is_joined_only_where_it_is_asked_for() -> None:
    """Prevents: `runs`, typed on one host of a pod, whose shells all have these variables, waits for the others."""
    assert World.of_tpu_pod(POD) == World(1, 3, 0, 1, "t0", 8476)
    assert World.of_tpu_pod(POD | {TAKEN: "1"}) == World.of_tpu_pod(TORCHRUN) == ALONE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"RANK": "4"}, "rank 4 of 4 processes"),
        ({"RANK": "one"}, "RANK is 'one'"),
        ({"LOCAL_RANK": "2"}, "2 of 2 on this machine"),
    ],
)
def test_what_makes_no_sense_is_named(change: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        World.from_environment(TORCHRUN | change)


def test_lists_of_slurm() -> None:
    assert tasks_of_nodes("2(x3),1") == [2, 2, 2, 1]
    nodes = ["a", "a,b", "n[1-3]", "n[03,5]x,m", "gpu-[10-12,20].site"]
    assert [first_host(text) for text in nodes] == ["a", "a", "n1", "n03x", "gpu-10.site"]


def test_the_processes_of_a_machine_share_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents: each of 8 processes starts as many threads as there are cores."""
    monkeypatch.setattr("tunix_rt.backends.processes.world.usable_cores", lambda: 16)
    pair, bound = World(0, 4, 0, 2), World(0, 4, 0, 2, shares_cores=False)
    assert [pair.threads("auto"), pair.threads(6), pair.threads(1), bound.threads("auto")] == [8, 3, 1, 16]
