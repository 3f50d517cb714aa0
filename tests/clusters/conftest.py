"""Sweeps at a shell that has a SLURM cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters import slurm
from tests.clusters.slurm import Cluster
from tests.sweeps.conftest import Shell

collect_ignore = [] if slurm.installed() else ["test_slurm.py", "test_tasks.py"]
"""They are chosen only where SLURM's daemons are installed, and may be started."""

SLURM = ("-m", "hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1")
MINUTE = (
    "training.max_steps=200",
    "training.evaluate_every=null",
    "checkpoint.log_every=5",
    "checkpoint.save_every=40",
)
"""A run that a test has the time to disturb."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with slurm.cluster() as started:
        yield started


@pytest.fixture
def shell(work: Path, capfd: pytest.CaptureFixture[str], cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A person at a shell of the cluster's login node."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    return Shell(work, capfd)


def results(folder: Path) -> dict[str, bytes]:
    """What each run below a folder computed."""
    names = ("model/model.safetensors", "metrics.jsonl", "predictions.jsonl", "metrics.json")
    files = [file for name in names for file in folder.glob(f"*/*/{name}")]
    assert files, folder
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}
