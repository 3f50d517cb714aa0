"""The stages in order: the request of each one, filled from the config, and its outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tunix_rt.engine.context import RunContext
from tunix_rt.evaluation.answers import is_right
from tunix_rt.files import JsonObject
from tunix_rt.inference.asked import check_asked
from tunix_rt.inputs import ensure_prepared
from tunix_rt.machine import cache_folder
from tunix_rt.stages.evaluate import EvaluateRequest, evaluate
from tunix_rt.stages.predict import PredictRequest, predict
from tunix_rt.stages.report import ReportRequest, report
from tunix_rt.stages.train import TrainRequest, train
from tunix_rt.tracking.store import ui_command


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage, as seen by the engine."""

    name: str
    work: Callable[[RunContext], JsonObject | None]
    """Runs the stage; returns facts for its record."""
    outputs: tuple[str, ...] = ()
    """Files and folders that it leaves in its folder; the data that `prepare` leaves has its own manifest."""
    computes: bool = False
    """Uses a backend. Its result may be that of another run, which is then referred to."""


def train_request(context: RunContext) -> TrainRequest:
    """The request for training."""
    config = context.config
    return TrainRequest(
        format=config.format,
        backend=config.backend,
        adapter=config.model.adapter,
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
    )


def predict_request(context: RunContext) -> PredictRequest:
    """The request for prediction."""
    config = context.config
    return PredictRequest(
        format=config.format,
        backend=config.backend,
        adapter=config.model.adapter,
        generation=config.generation,
        prepared=context.prepared,
        run=context.run,
        hardware=config.hardware,
        cache=cache_folder(),
        interrupt=context.interrupt,
    )


def evaluate_request(context: RunContext) -> EvaluateRequest:
    """The request for evaluation."""
    config = context.config
    return EvaluateRequest(
        evaluation=config.evaluation, split=config.generation.split, prepared=context.prepared, run=context.run
    )


def report_request(context: RunContext) -> ReportRequest:
    """The request for a report."""
    return ReportRequest(run=context.run, ui_command=ui_command(context.config.tracking))


def _prepare(context: RunContext) -> None:
    check_asked(ensure_prepared(context.config, context.prepared.folder, context.store), context.config.generation)


STAGES = (
    Stage("prepare", _prepare),
    Stage("train", lambda context: train(train_request(context)), ("model", "metrics.jsonl"), computes=True),
    Stage(
        "predict",
        lambda context: predict(predict_request(context)),
        ("predictions.jsonl", "baseline_predictions.jsonl"),
        computes=True,
    ),
    Stage(
        "evaluate",
        lambda context: evaluate(evaluate_request(context)),
        ("items.jsonl", "metrics.json", "baseline_metrics.json"),
    ),
    Stage("report", lambda context: report(report_request(context)), ("report.md", "figures", "plots")),
)
