"""The stages in order: what each one takes of the config, and its outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tunix_rt.config.results import EvaluationConfig
from tunix_rt.engine.context import RunContext
from tunix_rt.evaluation.answers import is_right
from tunix_rt.evaluation.reward import Rewarder
from tunix_rt.files import JsonObject
from tunix_rt.inputs import ensure_prepared, teacher_folder
from tunix_rt.machine import cache_folder
from tunix_rt.objectives.rollouts import RolloutObjective
from tunix_rt.stages.evaluate import evaluate
from tunix_rt.stages.predict import PredictRequest, check_asked, predict
from tunix_rt.stages.report import report
from tunix_rt.stages.train import TrainRequest, train
from tunix_rt.traces.rollout import rollout_steps
from tunix_rt.tracking.store import ui_command


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage, as seen by the engine."""

    name: str
    work: Callable[[RunContext], JsonObject | None]
    """Runs the stage; returns facts for its record."""
    outputs: tuple[str, ...] = ()
    """Files and folders that it leaves in its folder; the prepared data has its own manifest."""
    computes: bool = False
    """Uses a backend. Its result may be that of another run, which is then referred to."""


def _prepare(context: RunContext) -> None:
    prepared = ensure_prepared(context.config, context.prepared.folder, context.store, context.start)
    check_asked(prepared, context.config.generation)


def _train(context: RunContext) -> JsonObject:
    config = context.config
    request = TrainRequest(
        format=config.format,
        backend=config.backend,
        adapter=config.model.adapter,
        objective=config.objective,
        optimizer=config.optimizer,
        schedule=config.schedule,
        training=config.training,
        stop_step=config.run.stop_step,
        prepared=context.prepared,
        run=context.run,
        identity=context.chain["train"],
        hardware=config.hardware,
        checkpoint=config.checkpoint,
        cache=cache_folder(),
        interrupt=context.interrupt,
        is_right=partial(is_right, evaluation=config.evaluation),
        judge=partial(_judge, config.evaluation, config.objective, context.run.rollouts),
        teacher=partial(teacher_folder, config, context.store, context.home or Path()),
    )
    return train(request)


def _judge(evaluation: EvaluationConfig, objective: RolloutObjective, rollouts: Path) -> Rewarder:
    begun = bool(rollout_steps(rollouts))
    return Rewarder(evaluation, objective.reward, objective.rollout.max_new_tokens, begun)


def _predict(context: RunContext) -> JsonObject:
    config = context.config
    request = PredictRequest(
        format=config.format,
        backend=config.backend,
        adapter=config.model.adapter,
        generation=config.generation,
        trains=config.training.trains,
        prepared=context.prepared,
        run=context.run,
        hardware=config.hardware,
        cache=cache_folder(),
        interrupt=context.interrupt,
    )
    return predict(request)


def _evaluate(context: RunContext) -> None:
    evaluate(context.config.evaluation, context.config.generation.split, context.prepared, context.run)


def _report(context: RunContext) -> None:
    report(context.run, ui_command(context.config.tracking, context.run.path))


ANSWERS = ("predictions.jsonl", "baseline_predictions.jsonl", "greedy_predictions.jsonl", "interventions.jsonl")
VERDICTS = ("items.jsonl", "metrics.json", "scores.json", "baseline_items.jsonl", "baseline_metrics.json")
STAGES = (
    Stage("prepare", _prepare, ("data.json",)),
    Stage("train", _train, ("model", "metrics.jsonl", "rollouts"), computes=True),
    Stage("predict", _predict, ANSWERS, computes=True),
    Stage("evaluate", _evaluate, VERDICTS),
    Stage("report", _report, ("report.md", "report.html", "figures", "plots")),
)
