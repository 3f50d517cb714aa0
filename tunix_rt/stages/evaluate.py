"""Stage `evaluate`: predictions and traces in, `items.jsonl`, `metrics.json` and `scores.json` out. Needs no model."""

from __future__ import annotations

from dataclasses import replace

from tunix_rt.config.choices import SplitName
from tunix_rt.config.results import EvaluationConfig
from tunix_rt.evaluation.faithfulness import of_interventions
from tunix_rt.evaluation.score import score
from tunix_rt.files import write_json, write_jsonl
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.scores import scores
from tunix_rt.traces.prediction import read_if_there, read_predictions
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.traces.trace import MIXED


def evaluate(evaluation: EvaluationConfig, split: SplitName, prepared: PreparedData, run: RunFolder) -> None:
    """Score the predictions of the split, and those of the baseline if there are any. Raises DataError."""
    traces = {trace.id: trace for trace in prepared.traces(split)}
    if prepared.is_mixture and MIXED not in evaluation.slices:
        evaluation = replace(evaluation, slices=(MIXED, *evaluation.slices))
    if run.baseline_predictions.exists():
        baseline = score(list(read_predictions(run.baseline_predictions)), traces, evaluation)
        write_jsonl(run.baseline_items, baseline.items)
        write_json(run.baseline_metrics, baseline.metrics)
    predictions, greedy = list(read_predictions(run.predictions)), read_if_there(run.greedy_predictions)
    result = score(predictions, traces, evaluation, greedy)
    write_jsonl(run.items, result.items)
    metrics = result.metrics | of_interventions(run.interventions, predictions, traces, evaluation)
    write_json(run.metrics, metrics)
    write_json(run.scores, scores(metrics))
