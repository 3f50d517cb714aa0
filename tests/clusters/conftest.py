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
