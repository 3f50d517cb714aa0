"""The loop with a device that is busy after a step has been dispatched, as a GPU is and JAX on any device."""

from __future__ import annotations

import json
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import TOY
from tunix_rt.batches.batch import Batch
from tunix_rt.config.load import check, compose
from tunix_rt.errors import NonFiniteError
from tunix_rt.runs.interrupt import Interrupt
from tunix_rt.runs.log import MetricsLog
from tunix_rt.training.checkpoint import Checkpoints, Mark
from tunix_rt.training.loop import Outcome, Work, train

STEP_SECONDS = 0.05
NUM_STEPS = 4


class BusyDevice:
    """Dispatches at once, is done with a step after STEP_SECONDS; its state is the time at which it is free."""

    def __init__(self, bad_step: int | None = None) -> None:
        self.bad_step = bad_step
        self.steps = 0

    def train_step(self, state: float, batch: Batch, learning_rate: float) -> tuple[float, Any]:
        self.steps += 1
        free = max(state, time.monotonic()) + STEP_SECONDS
        return free, (free, self.steps)

    def fetch(self, measurements: Any) -> dict[str, Any]:
        free, step = measurements
        time.sleep(max(0.0, free - time.monotonic()))
        values = {"loss_sum": 2.0, "weight_sum": 1.0, "grad_norm": 1.0, "finite": step != self.bad_step}
        return {name: np.asarray(value) for name, value in values.items()}

    def save(self, state: float, folder: Path) -> Future[None]:
        (folder / "model.safetensors").write_bytes(b"weights")
        done: Future[None] = Future()
        done.set_result(None)
        return done


def trained(backend: Any, folder: Path, log_every: int) -> Outcome:
    config = check(compose([*TOY, f"checkpoint.log_every={log_every}", "training.evaluate_every=null"]))
    row = np.ones((1, 1, 3), np.int32)
    work = Work(
        num_steps=NUM_STEPS,
        batch_at=lambda step: Batch(row, row, row, row, row.astype(np.float32)),
        rate_at=lambda step: 0.1,
        evaluate=lambda state, step: {},
    )
    log = MetricsLog(folder / "metrics.jsonl", folder / "timings.jsonl", exact=True)
    checkpoints = Checkpoints(folder / "checkpoints", {}, keep=1)
    stop = Interrupt(folder / "stop")
    return train(backend, 0.0, Mark(), work, config.training, config.checkpoint, log, checkpoints, stop)


@pytest.mark.parametrize("log_every", [1, 2, 100])
def test_seconds_are_those_of_the_device_not_of_the_dispatch(log_every: int, tmp_path: Path) -> None:
    """Prevents: tokens per second of a device that has only been told what to do."""
    outcome = trained(BusyDevice(), tmp_path, log_every)
    assert outcome.mark.tokens == NUM_STEPS * 3
    assert outcome.mark.seconds >= NUM_STEPS * STEP_SECONDS
    last = json.loads((tmp_path / "timings.jsonl").read_text().splitlines()[-1])
    assert last["tokens_per_second"] <= NUM_STEPS * 3 / (NUM_STEPS * STEP_SECONDS)
    saved = Checkpoints(tmp_path / "checkpoints", {}, keep=1).newest()
    assert saved == outcome.mark


def test_what_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"at step 3 .* steps 3 to 4.*no checkpoint exists yet"):
        trained(BusyDevice(bad_step=3), tmp_path, 2)
    assert not list(tmp_path.glob("checkpoints/*"))
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
