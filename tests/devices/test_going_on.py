"""A run goes on with other numbers of devices, and on the other backend: one curve of 20 steps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backends.team import Job, Team, run
from tests.backends.test_torch_devices import LLAMA, VOCABULARY, batch
from tests.conftest import config_of
from tests.devices.runs import SFT, Mesh, check_same, root_of, run_in, words_for
from tunix_rt import faults
from tunix_rt.backends.interface import TrainingSetup
from tunix_rt.backends.processes.world import World
from tunix_rt.config.model import ScratchModel
from tunix_rt.models.initialise import write_fresh
from tunix_rt.models.shards import finish

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1800)]
ONE: Mesh = (1, 1, 1)
CHAIN: tuple[Mesh, ...] = ((1, 4, 1), (1, 2, 1), ONE)
STEPS, EACH = 20, 5
CURVE = {"loss": 1e-4, "norm": 1e-3, "model": 1e-3}


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_the_same_command_goes_on_with_fewer_devices(backend: str, work: Path) -> None:
    """Stopped by a signal after steps 7 and 14."""
    words = [f"backend={backend}", *SFT, f"training.max_steps={STEPS}", "training.evaluate_every=20"]
    assert started([*words, *words_for(ONE)]) == 0
    for mesh, step in zip(CHAIN, (7, 7, None), strict=True):
        stop = {} if step is None else {faults.POINT: f"dispatched step:{step}:{int(signal.SIGTERM)}"}
        code = started([*words, *words_for(mesh), "run.root=chain"], **stop)
        assert code == (0 if step is None else 128 + signal.SIGTERM)
    print(check_same(run_in("chain"), run_in(root_of(ONE)), CURVE))


def started(words: list[str], **variables: str) -> int:
    """The exit code of a command in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    return subprocess.run([sys.executable, "-m", "tunix_rt", *words], env=environment, timeout=500).returncode


@pytest.fixture
def teams() -> Iterator[dict[tuple[str, int], Team]]:
    """By backend and number of devices; one process has those of jax."""
    found = {("torch", size): Team(size) for size in (1, 2, 4)}
    jax = Team(1, "jax")
    jax(divided, 4)
    yield found | {("jax", size): jax for size in (1, 2, 4)}
    for team in (*found.values(), jax):
        team.close()


def divided(world: World, devices: int) -> None:
    import jax

    jax.config.update("jax_num_cpu_devices", devices)


@pytest.mark.parametrize(
    "chain",
    [
        [("torch", mesh) for mesh in CHAIN] + [("jax", ONE)],
        [("jax", mesh) for mesh in CHAIN] + [("torch", ONE)],
        [("torch", (1, 4, 1)), ("jax", (1, 4, 1)), ("torch", (1, 2, 1)), ("jax", (2, 2, 1))],
    ],
    ids=["torch, then jax", "jax, then torch", "parts of one on parts of the other"],
)
def test_the_other_backend_goes_on_with_it(
    chain: list[tuple[str, Mesh]], teams: dict[tuple[str, int], Team], tmp_path: Path
) -> None:
    """Five steps on each; a backend is part of a run's identity, so this is asked of the backends themselves."""
    base = tmp_path / "base"
    base.mkdir()
    source = ScratchModel(kind="scratch", config=LLAMA, initializer_range=0.3, scale_residual_init=False)
    write_fresh(base, source, VOCABULARY, seed=0, pad_id=0, end_id=1)
    whole = Job(base, TrainingSetup(config_of(SFT).optimizer, 0.5, 7), [batch(seed % 3) for seed in range(STEPS)])
    expected = trained(teams, whole, *chain[0][:1], ONE, tmp_path / "whole")
    losses: list[float] = []
    restored: tuple[Path, ...] = ()
    for number, (backend, mesh) in enumerate(chain):
        part = replace(whole, batches=whole.batches[number * EACH : (number + 1) * EACH])
        losses += trained(teams, part, backend, mesh, tmp_path / f"{number}", *restored)
        restored = (tmp_path / f"{number}",)
    print(chain, np.max(np.abs(np.array(losses) / expected - 1)))
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert losses[-1] < losses[0] / 2


def trained(
    teams: dict[tuple[str, int], Team], job: Job, backend: str, mesh: Mesh, out: Path, *restored: Any
) -> list[float]:
    """The losses; what is saved is in `out`."""
    results = teams[backend, int(np.prod(mesh))](run, replace(job, backend=backend), mesh, out, *restored)
    finish(out, [result.saved for result in results])
    losses: list[float] = results[0].losses
    return losses
