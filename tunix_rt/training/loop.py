"""THE training loop: batches in, updates done, metrics and checkpoints out. Knows no framework and no text.

The order within a step is law:
 1. ask whether somebody wants to stop (between updates, so that a checkpoint is a whole step);
 2. dispatch the update; 3. build the next batch while the device works;
 4. at a logging, evaluation or saving step only, fetch the measurements of all steps since the last one
    and refuse non-finite ones (before a checkpoint could hold them);
 5. evaluate; 6. save; 7. decide whether to end early, from what has been logged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from tunix_rt.backends.interface import Backend, Measurements, State
from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import CheckpointConfig
from tunix_rt.config.training import TrainingConfig
from tunix_rt.errors import Interrupted, NonFiniteError
from tunix_rt.runs.interrupt import Interrupt
from tunix_rt.runs.log import MetricsLog
from tunix_rt.terminal import progress
from tunix_rt.training.checkpoint import Checkpoints, Mark
from tunix_rt.training.schedule import due
from tunix_rt.training.stopping import best_step, metric_of, stop_reason


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done: `batch_at(step)` and `rate_at(step)` for steps 1 … `num_steps`, and how to evaluate."""

    num_steps: int
    batch_at: Callable[[int], Batch]
    rate_at: Callable[[int], float]
    evaluate: Callable[[State, int], Mapping[str, float]]
    """(state, step) → `eval/…` metrics."""
    stop_step: int | None = None
    """Stop after this step, whatever the clock says."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How training ended: the last step, the step that becomes the model, and why it ended early (if so)."""

    mark: Mark
    selected_step: int
    reason: str | None


@dataclass(slots=True)
class _Recorder:
    """Steps whose measurements are still on the device, and where they go from there."""

    backend: Backend
    log: MetricsLog
    checkpoints: Checkpoints
    clock: Callable[[], float]
    """Seconds of training so far, those of an interrupted run included."""
    loss: float | None = None
    """Of the last step that was fetched."""
    _pending: list[tuple[int, float, int, Measurements]] = field(default_factory=list)

    def add(self, step: int, rate: float, tokens: int, measurements: Measurements) -> None:
        self._pending.append((step, rate, tokens, measurements))

    def flush(self, mark: Mark) -> Mark:
        """Fetch and log every pending step; the mark, with the time at which the device was done with it.

        Raises NonFiniteError with the interval.
        """
        fetched = [(step, rate, tokens, self.backend.fetch(left)) for step, rate, tokens, left in self._pending]
        mark = replace(mark, seconds=self.clock())
        seconds = {"time": time.time(), "tokens_per_second": mark.tokens / max(mark.seconds, 1e-9)}
        for step, rate, tokens, values in fetched:
            if not bool(values["finite"]):
                self._refuse(step, mark)
            self.loss = float(values["loss_sum"]) / max(float(values["weight_sum"]), 1e-9)
            line = {
                "train/loss": self.loss,
                "train/grad_norm": float(values["grad_norm"]),
                "train/learning_rate": rate,
                "train/tokens": float(tokens),
            }
            self.log.write(step, line, seconds)
        self._pending.clear()
        return mark

    def _refuse(self, step: int, mark: Mark) -> None:
        good = self.checkpoints.steps()
        last = f"the last good checkpoint is {self.checkpoints.path(good[-1])}" if good else "no checkpoint exists yet"
        raise NonFiniteError(
            f"loss or gradient is not finite at step {step} (found in steps {self._pending[0][0]} to {mark.step}); "
            f"the update was not applied; {last}; try a lower optimizer.learning_rate or a training.clip_norm"
        )

    def save(self, state: State, mark: Mark, best: int | None) -> Mark:
        """Log what is pending, then save: a checkpoint never holds what has not been looked at."""
        mark = self.flush(mark)
        folder = self.checkpoints.begin(mark.step)
        self.checkpoints.commit_when_done(mark, self.backend.save(state, folder))
        self.checkpoints.rotate(best)
        return mark


def train(
    backend: Backend,
    state: State,
    begin: Mark,
    work: Work,
    training: TrainingConfig,
    cadence: CheckpointConfig,
    log: MetricsLog,
    checkpoints: Checkpoints,
    interrupt: Interrupt,
) -> Outcome:
    """Train from `begin` to the end of `work`; leaves a whole checkpoint of the selected and the last step.

    Raises Interrupted (after saving), NonFiniteError, OutOfMemory.
    """
    started = time.monotonic() - begin.seconds
    recorder = _Recorder(backend, log, checkpoints, clock=lambda: time.monotonic() - started)
    mark, reason, best = begin, None, _best(training, log, begin)
    batch = work.batch_at(mark.step + 1) if mark.step < work.num_steps else None
    with progress("train", work.num_steps, "steps", done=mark.step) as bar:
        while batch is not None and reason is None:
            _stop_if_asked(recorder, state, mark, best, interrupt)
            step, rate = mark.step + 1, work.rate_at(mark.step + 1)
            tokens = mark.tokens + int((batch.segments > 0).sum())
            state, measurements = backend.train_step(state, batch, rate)
            interrupt.hold()
            recorder.add(step, rate, tokens, measurements)
            batch = work.batch_at(step + 1) if step < work.num_steps else None
            mark = Mark(step, tokens, recorder.clock())
            last = step == work.num_steps
            evaluating = due(step, training.evaluate_every, work.num_steps)
            if due(step, cadence.log_every, work.num_steps) or evaluating:
                mark = recorder.flush(mark)
            if evaluating:
                log.write(step, work.evaluate(state, step), {"time": time.time()})
                mark = replace(mark, seconds=recorder.clock())
            reason = None if last else _reason(work, training, log, mark, evaluating)
            best = _best(training, log, mark)
            if last or reason or due(step, cadence.save_every, work.num_steps) or (evaluating and best == step):
                mark = recorder.save(state, mark, best)
            bar.advance(note="" if recorder.loss is None else f"loss {recorder.loss:.4f}")
    checkpoints.finish()
    interrupt.release(f"after step {mark.step}, which is saved")
    checkpoints.rotate(best)
    return Outcome(mark, mark.step if best is None else best, reason)


def _stop_if_asked(recorder: _Recorder, state: State, mark: Mark, best: int | None, interrupt: Interrupt) -> None:
    try:
        interrupt.check(f"after step {mark.step}, which is saved" if mark.step else "before the first step")
    except Interrupted:
        if mark.step > 0 and mark.step not in recorder.checkpoints.steps():
            recorder.save(state, mark, best)
        recorder.checkpoints.finish()
        raise


def _best(training: TrainingConfig, log: MetricsLog, mark: Mark) -> int | None:
    metric = metric_of(training.select)
    return None if metric is None else best_step(_until(log, metric, mark), metric)


def _reason(work: Work, training: TrainingConfig, log: MetricsLog, mark: Mark, evaluated: bool) -> str | None:
    if work.stop_step is not None:
        training = replace(training, max_seconds=None)
        if mark.step >= work.stop_step:
            return f"at step {work.stop_step}, as declared by run.stop_step"
    rule = training.early_stopping
    series = _until(log, f"eval/{rule.metric}", mark) if rule is not None and evaluated else []
    return stop_reason(training, series, mark.seconds)


def _until(log: MetricsLog, metric: str, mark: Mark) -> list[tuple[int, float]]:
    """A metric up to where training is: after a kill the log may know more."""
    return [(step, value) for step, value in log.series(metric) if step <= mark.step]
