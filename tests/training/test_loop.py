"""The loop with a device that is busy after a step has been dispatched, as a GPU is and JAX on any device."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import TOY
from tunix_rt.batches.batch import Batch
from tunix_rt.config.load import check, compose
from tunix_rt.errors import Interrupted, NonFiniteError
from tunix_rt.files import read_jsonl, sha256_bytes
from tunix_rt.runs.interrupt import Interrupt
from tunix_rt.runs.log import MetricsLog
from tunix_rt.training.checkpoint import Checkpoints, Progress
from tunix_rt.training.loop import TrainPlan, train
from tunix_rt.training.source import Update

STEP_SECONDS = 0.05
TOKENS = 3
"""Of a step."""
ANY = 10**9
"""A log that knows every step."""


class BusyDevice:
    """Dispatches at once, is done with a step after `seconds`; its state is the time at which it is free.

    `during`: called with the number of each step. Saves in a thread, as backends do.
    """

    def __init__(
        self,
        seconds: float = 0.0,
        bad_step: int | None = None,
        compiles: Mapping[int, float] | None = None,
        during: Callable[[int], None] = lambda step: None,
    ) -> None:
        self.seconds, self.bad_step, self.compiles, self.during = seconds, bad_step, compiles or {}, during
        self.steps: list[int] = []
        self.writer = ThreadPoolExecutor(1)

    def train_step(self, state: float, batch: Batch, learning_rate: float) -> tuple[float, Any]:
        step = int(batch.tokens[0, 0])
        self.during(step)
        self.steps.append(step)
        time.sleep(self.compiles.get(step, 0.0))
        free = max(state, time.monotonic()) + self.seconds
        return free, (free, step)

    def fetch(self, measurements: Any) -> dict[str, Any]:
        free, step = measurements
        time.sleep(max(0.0, free - time.monotonic()))
        values = {"loss_sum": TOKENS * 2.0, "grad_norm": 1.0, "finite": step != self.bad_step}
        return {name: np.asarray(value) for name, value in values.items()} | {
            "compiled": np.asarray(step in self.compiles)
        }

    def save(self, state: float, folder: Path, max_shard_size: int) -> Future[dict[str, str]]:
        def write() -> dict[str, str]:
            time.sleep(0.05)
            (folder / "model.safetensors").write_bytes(b"weights")
            return {"model.safetensors": sha256_bytes(b"weights")}

        return self.writer.submit(write)


@dataclass(frozen=True)
class Rows:
    """A source of batches that ignore the state."""

    batch_at: Callable[[int], Batch]
    fetched_ahead: bool = True

    def batch(self, step: int, state: Any) -> Update:
        return Update(self.batch_at(step))

    def ids(self, step: int) -> list[str]:
        return [str(step)]


def trained(
    backend: Any,
    folder: Path,
    *words: str,
    num_steps: int = 4,
    losses: Mapping[int, float] | None = None,
    evaluation_seconds: float = 0.0,
    during_evaluation: Callable[[int], None] = lambda step: None,
    stop_step: int | None = None,
) -> Progress:
    """Train, or go on; `losses`: of the evaluation of a step."""
    folder.mkdir(exist_ok=True)
    config = check(compose([*TOY, "training.evaluate_every=null", *words]))

    def batch_at(step: int) -> Batch:
        row = np.full((1, TOKENS), step, np.int32)
        return Batch.supervised(row, row, row, row, row.astype(np.float32))

    def evaluate(state: float, step: int) -> Mapping[str, float]:
        time.sleep(evaluation_seconds)
        during_evaluation(step)
        return {"eval/loss": (losses or {}).get(step, 1.0)}

    plan = TrainPlan(num_steps, Rows(batch_at), lambda step: 0.1, evaluate, stop_step)
    log = MetricsLog(folder / "metrics.jsonl", folder / "timings.jsonl", exact=True)
    checkpoints = Checkpoints(folder / "checkpoints", {}, keep=2)
    begin = checkpoints.newest(log.last_step) or Progress()
    stop = Interrupt(folder / "stop")
    return train(backend, 0.0, begin, plan, config.training, config.checkpoint, log, checkpoints, stop)


def newest(folder: Path) -> Progress | None:
    return Checkpoints(folder / "checkpoints", {}, keep=2).newest(ANY)


def logged(folder: Path) -> list[int]:
    return [int(line["step"]) for _, line in read_jsonl(folder / "metrics.jsonl") if "train/loss" in line]


@pytest.mark.parametrize("log_every", [1, 2, 100])
def test_seconds_are_those_of_the_device_not_of_the_dispatch(log_every: int, tmp_path: Path) -> None:
    """Prevents: tokens per second of a device that has only been told what to do."""
    end = trained(BusyDevice(STEP_SECONDS), tmp_path, f"checkpoint.log_every={log_every}")
    assert end.tokens == 4 * TOKENS
    assert end.seconds >= 4 * STEP_SECONDS
    last = json.loads((tmp_path / "timings.jsonl").read_text().splitlines()[-1])
    assert last["tokens_per_second"] <= TOKENS / STEP_SECONDS
    assert newest(tmp_path) == end


@pytest.mark.slow
def test_throughput_is_of_the_last_interval_and_of_its_steps_alone(tmp_path: Path) -> None:
    """Prevents: a rate over the whole run, with compilation, evaluation and saving in it."""
    trained(
        BusyDevice(STEP_SECONDS, compiles={1: 1.0, 6: 1.0}),
        tmp_path,
        "checkpoint.log_every=2",
        "checkpoint.save_every=2",
        "training.evaluate_every=2",
        num_steps=6,
        evaluation_seconds=1.0,
    )
    timings = [line for _, line in read_jsonl(tmp_path / "timings.jsonl") if "tokens_per_second" in line]
    assert [line["step"] for line in timings] == [1, 2, 3, 4, 5, 6]
    for line in timings:
        rate = line["tokens_per_second"]
        assert TOKENS / 0.5 < rate <= TOKENS / STEP_SECONDS, f"{line}: a second of something else is in it"


def test_what_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"at step 3 .* steps 3 to 4.*no checkpoint exists yet"):
        trained(BusyDevice(bad_step=3), tmp_path, "checkpoint.log_every=2")
    assert not list(tmp_path.glob("checkpoints/*"))
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


class Gone(RuntimeError):
    """Any failure of a device."""


def test_whatever_ends_training_what_was_saved_before_is_whole(tmp_path: Path) -> None:
    """Prevents: a checkpoint that was down for 35 steps, lost to a loss that is not finite or to any exception."""
    with pytest.raises(NonFiniteError, match=r"at step 75 .*the last good checkpoint is .*step_00000040"):
        trained(BusyDevice(bad_step=75), tmp_path / "nan", "checkpoint.save_every=40", num_steps=200)

    def fail(step: int) -> None:
        if step == 42:
            raise Gone

    with pytest.raises(Gone):
        trained(BusyDevice(during=fail), tmp_path / "gone", "checkpoint.save_every=40", num_steps=200)
    for name in ("nan", "gone"):
        assert getattr(newest(tmp_path / name), "step", None) == 40


KILLED = """
import os, signal, sys, time
from pathlib import Path
from tests.training.test_loop import BusyDevice, trained

folder = Path(sys.argv[1])
marker = folder / "checkpoints/step_00000040/checkpoint.json"

def kill(step):
    if step == 75:
        deadline = time.monotonic() + 20
        while not marker.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

trained(BusyDevice(during=kill), folder, "checkpoint.save_every=40", "checkpoint.log_every=1", num_steps=100)
"""


def test_a_kill_loses_what_came_after_the_last_save_and_no_more(root: Path, tmp_path: Path) -> None:
    """Prevents: `save_every=40`, `kill -9` at step 75, and training starts at step 1."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=root, env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    device = BusyDevice()
    end = trained(device, tmp_path, "checkpoint.save_every=40", "checkpoint.log_every=1", num_steps=100)
    assert device.steps == list(range(41, 101))
    assert logged(tmp_path) == list(range(1, 101))
    assert (end.step, end.tokens) == (100, 100 * TOKENS)


def test_a_polite_stop_saves_the_step_it_stops_after(tmp_path: Path) -> None:
    def ask(step: int) -> None:
        if step == 3:
            (tmp_path / "stop").touch()

    with pytest.raises(Interrupted, match="after step 3, which is saved"):
        trained(BusyDevice(during=ask), tmp_path)
    assert getattr(newest(tmp_path), "step", None) == 3
    (tmp_path / "stop").touch()
    with pytest.raises(Interrupted, match="after step 3, which is saved"):
        trained(BusyDevice(), tmp_path)


def test_an_evaluation_that_was_interrupted_is_done_when_training_goes_on(tmp_path: Path) -> None:
    """Prevents: a signal that waits for a whole evaluation; or a step that is saved and never evaluated."""

    def leave(step: int) -> None:
        if step == 4:
            raise Interrupted("SIGTERM received", 143)

    words = ("training.evaluate_every=2", "training.select=best_loss")
    losses = {2: 2.0, 4: 1.0, 6: 3.0}
    for num_steps in (4, 6):  # also after the last step
        folder, whole = tmp_path / f"{num_steps}", tmp_path / f"whole {num_steps}"
        expected = trained(BusyDevice(), whole, *words, num_steps=num_steps, losses=losses)
        with pytest.raises(Interrupted):
            trained(BusyDevice(), folder, *words, num_steps=num_steps, losses=losses, during_evaluation=leave)
        assert getattr(newest(folder), "step", None) == 4
        end = trained(BusyDevice(), folder, *words, num_steps=num_steps, losses=losses)
        assert (end.step, end.selected_step) == (num_steps, 4) == (expected.step, expected.selected_step)
        assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


EARLY: dict[str, tuple[tuple[str, ...], int | None]] = {
    "early stopping": (("training.early_stopping={metric: loss, patience: 2, min_delta: 0.0}",), None),
    "a time budget": (("training.max_seconds=1e-3",), None),
    "a declared step": (("training.max_seconds=1e9",), 3),
}


@pytest.mark.parametrize("why", EARLY)
def test_what_ended_early_does_not_go_on_when_it_is_started_again(why: str, tmp_path: Path) -> None:
    """Prevents: a run killed between its last save and the end of the stage that trains on (15 steps, not 10)."""
    words, stop_step = EARLY[why]
    words = (*words, "training.evaluate_every=1", "training.select=best_loss")
    arguments: dict[str, Any] = {"num_steps": 9, "losses": {1: 0.5}, "stop_step": stop_step}
    end = trained(BusyDevice(), tmp_path, *words, **arguments)
    assert end.ended is not None and end.step < 9 and end.selected_step == 1
    again = BusyDevice()
    assert trained(again, tmp_path, *words, **arguments) == end
    assert again.steps == []
    assert logged(tmp_path) == list(range(1, end.step + 1))


def test_an_early_end_follows_from_the_log_where_the_checkpoint_does_not_say_it(tmp_path: Path) -> None:
    """A checkpoint of the first version has no such field."""
    words = (*EARLY["early stopping"][0], "training.evaluate_every=1")
    end = trained(BusyDevice(), tmp_path, *words, num_steps=9)
    marker = tmp_path / f"checkpoints/step_{end.step:08d}/checkpoint.json"
    record = json.loads(marker.read_text())
    old = {name: record["progress"][name] for name in ("step", "tokens", "seconds")}
    marker.write_text(json.dumps({"progress": old, "belongs": {}, "files": record["files"]}))
    again = BusyDevice()
    assert trained(again, tmp_path, *words, num_steps=9) == end
    assert again.steps == []


def test_what_was_within_a_time_budget_once_is_within_it_again(tmp_path: Path) -> None:
    """Prevents: a log that goes on beyond the end of training, after a kill and on a slower machine."""

    def fail(step: int) -> None:
        if step == 7:
            raise Gone

    words = ("checkpoint.save_every=4", "checkpoint.log_every=1", "training.max_seconds=1e9")
    with pytest.raises(Gone):
        trained(BusyDevice(during=fail), tmp_path, *words, num_steps=9)
    end = trained(BusyDevice(), tmp_path, *words[:2], "training.max_seconds=1e-3", num_steps=9)
    assert end.step == 6 and end.ended == "time budget of 0.001 s used"
    assert logged(tmp_path) == [1, 2, 3, 4, 5, 6]
