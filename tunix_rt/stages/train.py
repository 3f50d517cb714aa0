"""Stage `train`: prepared data and initial weights in, checkpoints, logs and `model/` out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np

from tunix_rt.backends import registry
from tunix_rt.backends.interface import AdapterSetup, Backend, State, TrainingSetup
from tunix_rt.batches.batch import sequential_batches
from tunix_rt.batches.encoded import EncodedDataset
from tunix_rt.batches.schedule import batch_schedule, evaluation_length
from tunix_rt.checked import replaced
from tunix_rt.config.execution import BackendConfig, CheckpointConfig, HardwareConfig
from tunix_rt.config.format import FormatConfig
from tunix_rt.config.model import LoraAdapter
from tunix_rt.config.optimizers import OptimizerConfig
from tunix_rt.config.training import ScheduleConfig, TrainingConfig, schedule_mistake
from tunix_rt.errors import DataError, InputError
from tunix_rt.files import JsonObject, copy_file
from tunix_rt.models.adapter_folder import Base
from tunix_rt.models.content import folder_digest
from tunix_rt.models.folder import GENERATION, copy_tokenizer
from tunix_rt.models.moments import is_moments
from tunix_rt.objectives.interface import Objective
from tunix_rt.objectives.rollouts import RolloutObjective
from tunix_rt.rollouts.interface import Judge, Reward
from tunix_rt.rollouts.source import RolloutSource
from tunix_rt.rollouts.start import rollout_source, starting_model, taught_by
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.interrupt import Interrupt
from tunix_rt.runs.live import SAMPLES
from tunix_rt.runs.log import MetricsLog
from tunix_rt.runs.sessions import begin_session, end_session, note_rows, recorded_rows, same_machine
from tunix_rt.terminal import say
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.traces.trace import Trace
from tunix_rt.training.as_it_is import keep_start
from tunix_rt.training.checkpoint import Checkpoints, Progress
from tunix_rt.training.local_rows import LocalRows, placed
from tunix_rt.training.loop import TrainPlan
from tunix_rt.training.loop import train as run_loop
from tunix_rt.training.pairs import PairSource, pair_source
from tunix_rt.training.sample import Sampler, Verdict
from tunix_rt.training.schedule import learning_rate
from tunix_rt.training.source import BatchSource, SupervisedSource

Measure = Callable[[State, Callable[[], None]], Mapping[str, float]]
"""(state, what to call between batches, which may raise Interrupted) → `eval/…` metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """What is trained, on what data, how, and where."""

    format: FormatConfig
    backend: BackendConfig
    adapter: LoraAdapter | None
    objective: Objective
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    training: TrainingConfig
    stop_step: int | None
    """Stop at this step, instead of a time budget."""
    prepared: PreparedData
    run: RunFolder
    identity: str
    """Identity that a checkpoint must belong to."""
    hardware: HardwareConfig
    checkpoint: CheckpointConfig
    cache: Path
    """Cache folder for compiled programs."""
    interrupt: Interrupt
    is_right: Verdict
    """Judges answers to validation prompts, by the section `evaluation`."""
    judge: Callable[[], AbstractContextManager[Judge]]
    """Makes who judges the answers that are learned from, by `evaluation` and `objective.reward`."""
    teacher: Callable[[], Path | None]
    """Finds the model folder of `objective.teacher`; None: there is no teacher."""


def train(request: TrainRequest) -> JsonObject:
    """Train, or resume from the newest complete checkpoint; returns facts for the record (steps, epochs, row length).

    Raises DataError, DeviceError, MissingExtra, OutOfMemory, NonFiniteError, CheckpointError, Interrupted.
    """
    if not request.training.trains:
        return keep_start(request.run, request.prepared.model_folder, request.adapter)
    with ExitStack() as opened:
        return _train(request, opened)


def _train(request: TrainRequest, opened: ExitStack) -> JsonObject:
    prepared, run, training, schedule = request.prepared, request.run, request.training, request.schedule
    engine = registry.create(request.backend, request.hardware, request.cache)
    setup = setup_of(request.optimizer, training, request.adapter, prepared.model_folder)
    local = local_rows(request, engine)
    source, facts = source_of(request, engine, setup, local, opened)
    local.begin(prepared.model_folder, rows_of(request), int(facts["row_length"]))
    belongs = {"identity": request.identity, "data": str(prepared.manifest["digest"])}
    checkpoints = Checkpoints(run.checkpoints, belongs, request.checkpoint.keep)
    log = MetricsLog(run.metrics_log, run.timings_log, exact=same_machine(run, "train", computing(engine)))
    begin = checkpoints.newest(log.last_step)
    if begin is None:
        request.interrupt.release("before the first step")
        begin, state = Progress(), engine.load(prepared.model_folder, setup)
    else:
        request.interrupt.release(f"after step {begin.step}, which is saved")
        say(f"train: going on from step {begin.step}")
        state = engine.restore(checkpoints.path(begin.step), prepared.model_folder, setup)
    num_steps = int(facts["num_steps"])
    begin_session(run, "train", computing(engine), begin.step + 1, num_steps, local.facts())
    mistake = schedule_mistake(schedule, num_steps)
    if mistake is not None:
        raise InputError(": ".join(mistake))
    work = TrainPlan(
        num_steps=num_steps,
        source=source,
        rate_at=lambda step: learning_rate(schedule, request.optimizer.learning_rate, step, num_steps),
        evaluate=evaluator(engine, request, source, int(facts["row_length"])),
        stop_step=request.stop_step,
        watch=local.watch,
    )
    end = run_loop(engine, state, begin, work, training, request.checkpoint, log, checkpoints, request.interrupt)
    end_session(run, "train", end.step)
    selected = end.selected_step or end.step
    export_model(checkpoints, selected, prepared.model_folder, run.model)
    return (
        facts
        | local.facts()
        | {
            "steps_done": end.step,
            "tokens": end.tokens,
            "seconds": round(end.seconds, 3),
            "selected_step": selected,
            "ended_early": end.ended,
            "model_digest": folder_digest(run.model),
        }
    )


def source_of(
    request: TrainRequest, engine: Backend, setup: TrainingSetup, local: LocalRows, opened: ExitStack
) -> tuple[BatchSource, JsonObject]:
    """Where the updates come from, and what follows from the data. `opened`: what is closed after training."""
    objective, training, prepared = request.objective, request.training, request.prepared
    if isinstance(objective, RolloutObjective):
        return rollouts_of(request, objective, engine, opened.enter_context(request.judge()))
    if objective.data == "pairs":
        ready = partial(local.begin, prepared.model_folder, rows_of(request))
        return pair_source(objective, training, prepared, engine, setup, ready)
    order, facts = batch_schedule(training, prepared)
    return SupervisedSource(order), facts


def local_rows(request: TrainRequest, engine: Backend) -> LocalRows:
    """How many rows a device computes at once, which `run` records."""
    objective, run = request.objective, request.run
    return LocalRows(
        engine,
        request.backend,
        request.hardware,
        request.optimizer,
        request.adapter,
        objective.data == "rollouts" and objective.needs_reference and request.adapter is None,
        recorded_rows(run, placed(engine)),
        lambda step, rows: note_rows(run, computing(engine), step, placed(engine, rows)),
    )


def rows_of(request: TrainRequest) -> int:
    """Rows of an update, at most."""
    objective = request.objective
    if isinstance(objective, RolloutObjective):
        return objective.rollout.prompts_per_step * objective.rollout.samples_per_prompt
    return request.training.global_batch_size * (2 if objective.data == "pairs" else 1)


def computing(engine: Backend) -> dict[str, str]:
    """What numbers depend on: the framework and its devices, and fewer rows at once than all."""
    rows = engine.rows_at_once
    return engine.describe() | ({} if rows is None else {"local_batch_size": str(rows)})


def rollouts_of(
    request: TrainRequest, objective: RolloutObjective, engine: Backend, judge: Judge
) -> tuple[RolloutSource, JsonObject]:
    """The source of updates that samples answers and learns from what they are worth."""
    start, reference, asked = request.prepared.model_folder, None, None
    if (teacher := request.teacher()) is not None:
        asked, reference = taught_by(engine, teacher, start, objective.needs_reference)
    elif objective.needs_reference:
        reference = starting_model(engine, start, request.adapter)
    return rollout_source(
        objective,
        request.training,
        request.prepared,
        request.format,
        engine,
        judge,
        request.is_right,
        reference,
        asked,
        request.run.rollouts,
        request.interrupt,
    )


def setup_of(
    optimizer: OptimizerConfig, training: TrainingConfig, adapter: LoraAdapter | None, start: Path
) -> TrainingSetup:
    """The setup passed to a backend; an adapter refers to the folder `start` by its content."""
    lora = None if adapter is None else AdapterSetup(adapter, Base.of(start, folder_digest(start)))
    return TrainingSetup(optimizer, training.clip_norm, training.seed, lora)


def evaluator(
    engine: Backend, request: TrainRequest, source: BatchSource, row_length: int
) -> Callable[[State, int], Mapping[str, float]]:
    """The function that the loop calls to evaluate: the objective on the validation split, and the accuracy of a few
    answers."""
    prepared, interrupt = request.prepared, request.interrupt
    measure = source.validation if isinstance(source, PairSource) else _supervised(engine, request, row_length)
    traces = prepared.traces("validation")[: request.training.evaluate_samples]
    longest = request.objective.rollout.max_new_tokens if isinstance(request.objective, RolloutObjective) else None
    sampler = Sampler.of(prepared.model_folder, request.format, traces, longest) if traces else None
    judge = source.asking.judge if isinstance(source, RolloutSource) else None
    samples = request.run.metrics_log.with_name(SAMPLES)

    def evaluate(state: State, step: int) -> Mapping[str, float]:
        asked = partial(interrupt.check, f"after step {step}, which is saved")
        assert measure is not None  # there is one where training.evaluate_every is a number
        metrics = dict(measure(state, asked))
        if sampler is not None:
            answers, is_right = sampler.answers(engine, state, asked), request.is_right
            if judge is not None:
                rewards = _rewarded(judge, sampler, answers, is_right)
                metrics["eval/reward"] = fmean(reward.total for reward in rewards.values())
                is_right = partial(_by_reward, rewards=rewards, is_right=is_right)
            metrics["eval/accuracy"] = sampler.accuracy(answers, step, is_right, samples)
        return metrics

    return evaluate


def _rewarded(judge: Judge, sampler: Sampler, answers: Sequence[Prediction], is_right: Verdict) -> Mapping[str, Reward]:
    """The reward of each answer by the id of its prompt; where some prompts have no reference, of the others."""
    traces = {question.trace.id: question.trace for question in sampler.questions}
    known = [q.trace.id for q in sampler.questions if is_right(q.failed(""), q.trace) is not None] or list(traces)
    judged = [answer for answer in answers if answer.id in known]
    return dict(zip((answer.id for answer in judged), judge.rewards(judged, traces), strict=True))


def _by_reward(answer: Prediction, trace: Trace, rewards: Mapping[str, Reward], is_right: Verdict) -> bool | None:
    """The verdict of the process that judges, which no answer can stop, where the reward has one."""
    found = rewards[answer.id].components.get("answer") if answer.id in rewards else None
    return is_right(answer, trace) if found is None else found == 1


def _supervised(engine: Backend, request: TrainRequest, row_length: int) -> Measure:
    """The loss on the validation split."""
    prepared, training = request.prepared, request.training
    dataset = EncodedDataset.open(prepared.encoded("validation"))
    if training.evaluate_every is not None and len(dataset) == 0:
        raise DataError(
            f"{prepared.folder}: the validation split is empty; raise dataset.split.validation, "
            "or set training.evaluate_every=null"
        )

    def measure(state: State, check: Callable[[], None]) -> Mapping[str, float]:
        length, loss, weight = evaluation_length(dataset, row_length), 0.0, 0.0
        for batch in sequential_batches(dataset, length, training.packing, training.global_batch_size):
            check()
            logprobs = engine.fetch(engine.logprobs(state, batch))["logprobs"]
            loss -= float(np.sum(logprobs.astype(np.float64) * batch.weights))
            weight += float(np.sum(batch.weights, dtype=np.float64))
        return {"eval/loss": loss / max(weight, 1e-9)}

    return measure


def export_model(checkpoints: Checkpoints, step: int, start: Path, model: Path) -> None:
    """Create `model/`: the checkpoint's weights with the tokenizer of `start`; a folder that plain transformers loads.

    With an adapter it is the adapter's folder, which plain `peft` loads and which refers to `start` by its hash.
    Copies, never links, so that editing the model does not change the checkpoint. Raises DamagedCheckpoint.
    """
    with replaced(model) as part:
        checkpoints.copy(step, part, lambda name: not is_moments(name))
        copy_tokenizer(start, part)
        if (start / GENERATION).exists():
            copy_file(start / GENERATION, part / GENERATION)
