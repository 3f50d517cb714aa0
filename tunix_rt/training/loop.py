"""THE training loop: batches in, updates done, metrics and checkpoints out. Independent of framework and text.

The order within a step is law:
 1. check for an interrupt (between updates, so that a checkpoint holds complete steps);
 2. dispatch the update; 3. build the next batch while the device works, unless it depends on the updated model;
 4. at a logging, evaluation or saving step only, fetch the measurements of all steps since the last one
    and refuse non-finite ones (before a checkpoint could hold them);
 5. evaluate; 6. save; 7. decide whether to end early, from what has been logged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from tunix_rt import faults
from tunix_rt.backends.interface import Backend, Measurements, State
from tunix_rt.config.execution import CheckpointConfig
from tunix_rt.config.training import TrainingConfig
from tunix_rt.errors import Interrupted, NonFiniteError
from tunix_rt.runs.interrupt import Interrupt
from tunix_rt.runs.live import LEARNED
from tunix_rt.runs.log import MetricsLog
from tunix_rt.terminal import progress as progress_bar
from tunix_rt.training.checkpoint import Checkpoints, Progress
from tunix_rt.training.schedule import due
from tunix_rt.training.source import BatchSource, Update
from tunix_rt.training.stopping import Evaluations


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """What to train: the updates of `source` and `rate_at(step)` for steps 1 … `num_steps`, and how to evaluate."""

    num_steps: int
    source: BatchSource
    rate_at: Callable[[int], float]
    evaluate: Callable[[State, int], Mapping[str, float]]
    """(state, step) → `eval/…` metrics. May raise Interrupted, with a message that says the step is saved."""
    stop_step: int | None = None
    """Stop after this step, whatever the clock says."""
    watch: Callable[[int], None] = lambda step: None
    """Called after each step."""


@dataclass(frozen=True, slots=True)
class _Dispatched:
    """A step whose measurements are still on the device."""

    step: int
    rate: float
    tokens: int
    """Tokens of all steps so far."""
    own_tokens: int
    seconds: float
    """Duration of the call; mostly compilation if a program had to be compiled."""
    divisor: float
    metrics: Mapping[str, float]
    measurements: Measurements


@dataclass(slots=True)
class _Recorder:
    """Where measurements and states go: the log and the checkpoints."""

    backend: Backend
    log: MetricsLog
    checkpoints: Checkpoints
    started: float
    """Start on the clock `time.monotonic`, as if training had never been interrupted."""
    saved_step: int
    """Step of the last save, finished or not."""
    max_shard_size: int
    """Bytes of a file of weights, at most."""
    said: str = ""
    """What the progress bar says of the last step that was fetched."""
    _since: float = 0.0
    """Clock when the first pending step began."""
    _pending: list[_Dispatched] = field(default_factory=list)

    def clock(self) -> float:
        """Seconds of training so far, including earlier sessions."""
        return time.monotonic() - self.started

    def resume_clock(self) -> None:
        """Exclude what was done since the last step from every step's throughput."""
        self._since = self.clock()

    def train_step(self, state: State, update: Update, rate: float, now: Progress) -> tuple[State, Progress]:
        """Dispatch a step; what it measures is pending until the next `flush`."""
        batch, before = update.batch, self.clock()
        own_tokens = int((batch.segments > 0).sum())
        state, measurements = self.backend.train_step(state, batch, rate)
        now = Progress(now.step + 1, now.tokens + own_tokens, self.clock())
        seconds, given = now.seconds - before, (batch.divisor, update.metrics)
        self._pending.append(_Dispatched(now.step, rate, now.tokens, own_tokens, seconds, *given, measurements))
        return state, now

    def flush(self, now: Progress) -> Progress:
        """Fetch and log every pending step. Returns the progress, with the time when the device had finished them.

        Raises NonFiniteError with the interval.
        """
        fetched = [(step, self.backend.fetch(step.measurements)) for step in self._pending]
        now = replace(now, seconds=self.clock())
        compiled = [step for step, values in fetched if values.get("compiled", False)]
        tokens = sum(step.own_tokens for step, _ in fetched) - sum(step.own_tokens for step in compiled)
        seconds = now.seconds - self._since - sum(step.seconds for step in compiled)
        timings = {"time": time.time()} | ({"tokens_per_second": tokens / seconds} if tokens and seconds > 0 else {})
        for step, values in fetched:
            if not bool(values["finite"]):
                self._refuse(step.step, now)
            line = {
                "train/loss": float(values["loss_sum"]) / step.divisor,
                "train/grad_norm": float(values["grad_norm"]),
                "train/learning_rate": step.rate,
                "train/tokens": float(step.tokens),
                **step.metrics,
            }
            learned = [f"{title} {line[name]:.4f}" for name, title in LEARNED.items() if name in line]
            self.said = ", ".join([*learned, f"loss {line['train/loss']:z.4f}"])
            self.log.write(step.step, line, timings)
        self._pending.clear()
        self.resume_clock()
        return now

    def _refuse(self, step: int, now: Progress) -> None:
        self.checkpoints.finish()
        good = self.checkpoints.steps()
        last = f"the last good checkpoint is {self.checkpoints.path(good[-1])}" if good else "no checkpoint exists yet"
        raise NonFiniteError(
            f"loss or gradient is not finite at step {step} (found in steps {self._pending[0].step} to {now.step}); "
            f"the update was not applied; {last}; try a lower optimizer.learning_rate or a training.clip_norm"
        )

    def save(self, state: State, now: Progress) -> Progress:
        """Log what is pending, then save: a checkpoint never holds a step that has not been checked and logged."""
        now = self.flush(now)
        self.log.sync()
        self.checkpoints.save(now, partial(self.backend.save, state, max_shard_size=self.max_shard_size))
        self.saved_step = now.step
        self.resume_clock()
        return now

    @contextmanager
    def saving_if_interrupted(self, state: State, now: Progress) -> Iterator[None]:
        """If the block is interrupted, the step is saved, and training may be left."""
        try:
            yield
        except Interrupted:
            if now.step != self.saved_step:
                self.save(state, now)
            self.checkpoints.finish()
            raise

    def evaluate(self, state: State, now: Progress, plan: TrainPlan, evaluations: Evaluations) -> None:
        """Evaluate after a step. If interrupted, the step is saved, and evaluated when training resumes."""
        with self.saving_if_interrupted(state, now):
            metrics = plan.evaluate(state, now.step)
        self.log.write(now.step, metrics, {"time": time.time()})
        evaluations.add(now.step, metrics)
        self.resume_clock()


def train(
    backend: Backend,
    state: State,
    begin: Progress,
    plan: TrainPlan,
    training: TrainingConfig,
    cadence: CheckpointConfig,
    log: MetricsLog,
    checkpoints: Checkpoints,
    interrupt: Interrupt,
) -> Progress:
    """Train from `begin` to the end of `plan`; leaves a complete checkpoint of the selected and the last step.

    Raises Interrupted (after saving), NonFiniteError, OutOfMemory.
    """
    started = time.monotonic() - begin.seconds
    recorder = _Recorder(backend, log, checkpoints, started, begin.step, cadence.max_shard_size)
    evaluations = Evaluations(training)
    for step, metrics in log.evaluations(begin.step):
        evaluations.add(step, metrics)
    source = plan.source
    update = source.batch(1 + begin.step, state) if source.fetched_ahead and begin.step < plan.num_steps else None
    recorder.resume_clock()
    with checkpoints.committing(), progress_bar("train", plan.num_steps, "steps", done=begin.step) as bar:
        evaluating = begin.step > 0 and due(begin.step, training.evaluate_every, plan.num_steps)
        if evaluating and not log.has_evaluation(begin.step):
            recorder.evaluate(state, begin, plan, evaluations)
        now = replace(begin, ended=begin.ended or evaluations.reason())
        while now.step < plan.num_steps and now.ended is None:
            checkpoints.check()
            with recorder.saving_if_interrupted(state, now):
                interrupt.check(f"after step {now.step}, which is saved" if now.step > 0 else "before the first step")
                update = update or source.batch(now.step + 1, state)
            state, now = recorder.train_step(state, update, plan.rate_at(now.step + 1), now)
            interrupt.hold()
            plan.watch(now.step)
            faults.point("dispatched step")
            step, last = now.step, now.step == plan.num_steps
            update = source.batch(step + 1, state) if source.fetched_ahead and not last else None
            evaluating = due(step, training.evaluate_every, plan.num_steps)
            if due(step, cadence.log_every, plan.num_steps) or evaluating:
                now = recorder.flush(now)
            if evaluating:
                recorder.evaluate(state, now, plan, evaluations)
            now = replace(now, seconds=recorder.clock(), selected_step=evaluations.best or step)
            now = replace(now, ended=None if last else _reason(plan, training, evaluations, log, now))
            best = evaluating and evaluations.best == step
            if last or now.ended is not None or best or due(step, cadence.save_every, plan.num_steps):
                now = recorder.save(state, now)
            bar.advance(note=recorder.said)
    interrupt.release(f"after step {now.step}, which is saved")
    return replace(now, selected_step=evaluations.best or now.step)


def _reason(
    plan: TrainPlan, training: TrainingConfig, evaluations: Evaluations, log: MetricsLog, now: Progress
) -> str | None:
    """Why training ends now, in words; None if it goes on. A declared stop step replaces the time budget."""
    if plan.stop_step is not None and now.step >= plan.stop_step:
        return f"at step {plan.stop_step}, as declared by run.stop_step"
    budget = training.max_seconds if plan.stop_step is None else None
    # Steps already in the log were within the budget before a kill; they are repeated, however long that takes.
    over = budget is not None and now.seconds >= budget and now.step >= log.last_step
    return evaluations.reason() or (f"time budget of {budget:g} s used" if over else None)
