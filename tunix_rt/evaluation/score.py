"""Predictions and their traces → a verdict per item and the numbers of `metrics.json`.

docs/metrics.md describes both records. Every rate has its count and a 95 % Wilson interval. Samples of one prompt are
not independent: the interval counts prompts, not samples, so that it is never too narrow (a mean of values in [0, 1]
varies at most as much as a rate with the same mean).
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor
from operator import itemgetter

from boltons.iterutils import bucketize

from tunix_rt.config.results import EvaluationConfig
from tunix_rt.errors import DataError, InputError
from tunix_rt.evaluation.answers import judge, question_of, vote_groups
from tunix_rt.evaluation.scorer import Match, Scorer
from tunix_rt.evaluation.statistics import majority, pass_at_k, wilson
from tunix_rt.evaluation.steps import check_steps
from tunix_rt.files import JsonObject, to_json
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.trace import Trace

SCHEMA_VERSION = 2
"""2: scorers by name, where an answer was found; 1: one scorer, `exact` or `numeric`."""
UNJUDGED = Match(False, "no reference")
Items = Sequence[JsonObject]


@dataclass(frozen=True, slots=True)
class Score:
    """The verdicts, in the order of the predictions, and their totals."""

    items: list[JsonObject]
    metrics: JsonObject


def score(predictions: Sequence[Prediction], traces: Mapping[str, Trace], evaluation: EvaluationConfig) -> Score:
    """Judge every prediction against its trace. A failed prediction is a wrong answer.

    Raises DataError if there is nothing to score, a prediction is duplicated, belongs to no trace or was generated
    for another reference, or a prompt has too few samples for pass@k; InputError for a slice that no trace has.
    """
    _check(predictions, traces, evaluation)
    items = [_item(prediction, traces[prediction.id], evaluation) for prediction in predictions]
    prompts: dict[str, Items] = bucketize(items, itemgetter("id"))
    decisive: Scorer = evaluation.decisive
    judged = [item for item in items if decisive.judges(question_of(traces[item["id"]]))]
    answered: dict[str, Items] = bucketize(judged, itemgetter("id"))
    samples = max(len(group) for group in prompts.values())
    metrics: JsonObject = {
        "schema_version": SCHEMA_VERSION,
        "n": len(items),
        "prompts": len(prompts),
        "missing": len(traces) * samples - len(items),
        "accuracy": _rate(judged, itemgetter("correct")),
        "stop_rate": _rate(items, lambda item: item["finish_reason"] == "stop"),
        "malformed_rate": _rate(items, itemgetter("malformed")),
        "error_rate": _rate(items, lambda item: item["finish_reason"] == "error"),
        "ambiguous_rate": _rate(items, itemgetter("ambiguous")),
        "contains_answer": _rate(judged, itemgetter("contains_answer")),
        "completion_tokens": _lengths(items),
    }
    scores = {scorer.kind: _scored(items, scorer, scorer is decisive) for scorer in evaluation.scorers}
    if any(scores.values()):
        metrics["scores"] = {name: record for name, record in scores.items() if record}
    if evaluation.steps == "arithmetic":
        metrics["steps"] = _steps(items)
    if unjudged := len(prompts) - len(answered):
        metrics["without_reference"] = unjudged
    if evaluation.pass_at and answered:
        metrics["pass_at"] = {str(k): _pass_at(answered, k) for k in evaluation.pass_at}
    if samples > 1:
        metrics["majority"] = _majority(answered, decisive)
    metrics["slices"] = {key: _slice(judged, key) for key in evaluation.slices}
    return Score(items, metrics)


def _check(predictions: Sequence[Prediction], traces: Mapping[str, Trace], evaluation: EvaluationConfig) -> None:
    if not predictions:
        raise DataError("no predictions to score")
    counts = Counter((prediction.id, prediction.sample) for prediction in predictions)
    (name, sample), most = counts.most_common(1)[0]
    if most > 1:
        raise DataError(f"prediction {name}, sample {sample}: there {most} times, expected once")
    for prediction in predictions:
        trace = traces.get(prediction.id)
        if trace is None:
            raise DataError(f"prediction {prediction.id}: no trace with this id; the predictions belong to other data")
        if prediction.reference != trace.final_answer:
            raise DataError(
                f"prediction {prediction.id}: its reference is {prediction.reference!r}, the trace's final answer "
                f"{trace.final_answer!r}; the data changed after the predictions were made: predict again"
            )
    for key in evaluation.slices:
        if not any(key in trace.meta for trace in traces.values()):
            known = ", ".join(sorted({key for trace in traces.values() for key in trace.meta})) or "none"
            raise InputError(f"evaluation.slices: no trace has the meta key {key!r}; there are: {known}")


def _item(prediction: Prediction, trace: Trace, evaluation: EvaluationConfig) -> JsonObject:
    question, scorer = question_of(trace), evaluation.decisive
    found, matches = judge(prediction, question, evaluation)
    match = matches.get(scorer.kind, UNJUDGED)
    item: JsonObject = {
        "id": prediction.id,
        "sample": prediction.sample,
        "prompt": trace.prompt,
        "correct": match.equal,
        "reason": match.reason,
        "extracted": None if found is None else found.text,
        "marker": None if found is None else found.marker,
        "ambiguous": found is not None and found.ambiguous,
        "reference": trace.final_answer,
        "scores": {name: _verdict(other) for name, other in matches.items()},
        "contains_answer": scorer.contains(prediction.completion, question),
        "finish_reason": prediction.finish_reason,
        "malformed": prediction.answer is None and prediction.finish_reason != "error",
        "num_new_tokens": prediction.num_new_tokens,
    }
    if evaluation.steps == "arithmetic":
        item["step_checks"] = check_steps(prediction.steps)
    values = {key: trace.meta.get(key) for key in evaluation.slices}
    item["slices"] = {key: value if isinstance(value, str) else to_json(value) for key, value in values.items()}
    return item


def _verdict(match: Match) -> JsonObject:
    return {"correct": match.equal, "reason": match.reason, **match.values}


def _scored(items: Items, scorer: Scorer, decisive: bool) -> JsonObject:
    """The rate of one scorer, the mean of each further number that it gives (an item without one counts as 0), and what
    it says of itself. The decisive one's rate is the accuracy: it is here only with further numbers."""
    name, facts = scorer.kind, scorer.facts()
    judged = [item for item in items if name in item["scores"]]
    verdicts = [item["scores"][name] for item in judged]
    numbers = {key for verdict in verdicts for key in verdict} - {"correct", "reason"}
    means = {key: statistics.fmean(verdict.get(key, 0.0) for verdict in verdicts) for key in sorted(numbers)}
    if decisive and not means and not facts:
        return {}
    return _rate(judged, lambda item: item["scores"][name]["correct"]) | means | facts


def _rate(items: Items, holds: Callable[[JsonObject], bool]) -> JsonObject:
    """Share of the items for which `holds` is true; value and interval are null if there are no items."""
    return _record(sum(map(holds, items)), len(items), len({item["id"] for item in items}))


def _record(k: int, n: int, prompts: int) -> JsonObject:
    if n == 0:
        return {"value": None, "k": 0, "n": 0, "low": None, "high": None}
    low = wilson(k * prompts // n, prompts).low
    high = wilson(-(-k * prompts // n), prompts).high
    return {"value": k / n, "k": k, "n": n, "low": low, "high": high}


def _lengths(items: Items) -> JsonObject:
    """Lengths of the answers that did not fail; the 95th percentile is the smallest length that 95 % do not exceed."""
    lengths = sorted(int(item["num_new_tokens"]) for item in items if item["finish_reason"] != "error")
    if not lengths:
        return {"mean": None, "median": None, "p95": None, "max": None}
    return {
        "mean": statistics.fmean(lengths),
        "median": statistics.median(lengths),
        "p95": lengths[ceil(0.95 * len(lengths)) - 1],
        "max": lengths[-1],
    }


def _steps(items: Items) -> JsonObject:
    checked = [item for item in items if item["step_checks"]["num_checked"]]
    wrong = [item for item in checked if item["step_checks"]["num_wrong"]]
    first = Counter(item["step_checks"]["first_wrong"] for item in wrong)
    judged = [
        {"id": item["id"], "place": place, "right": right}
        for item in items
        for place, right in enumerate(item["step_checks"]["verdicts"])
        if right is not None
    ]
    by_index: dict[int, Items] = bucketize(judged, itemgetter("place"))
    return {
        "checked": _rate(items, lambda item: item["step_checks"]["num_checked"] > 0),
        "all_steps_right": _rate(checked, lambda item: item["step_checks"]["num_wrong"] == 0),
        "right_answer_wrong_steps": _rate(
            [item for item in checked if item["correct"]], lambda item: item["step_checks"]["num_wrong"] > 0
        ),
        "first_wrong": {str(place): number for place, number in sorted(first.items())},
        "by_index": {str(place): _rate(steps, itemgetter("right")) for place, steps in sorted(by_index.items())},
    }


def _pass_at(prompts: Mapping[str, Items], k: int) -> JsonObject:
    """Mean pass@k over the prompts; the interval spans those of the rates just below and above it."""
    short = next((name for name, group in prompts.items() if len(group) < k), None)
    if short is not None:
        raise DataError(f"prompt {short}: {len(prompts[short])} samples, pass@{k} needs at least {k}")
    n = len(prompts)
    total = sum(pass_at_k(len(group), sum(map(itemgetter("correct"), group)), k) for group in prompts.values())
    low, high = wilson(floor(total), n).low, wilson(ceil(total), n).high
    return {"value": total / n, "n": n, "low": low, "high": high}


def _majority(prompts: Mapping[str, Items], scorer: Scorer) -> JsonObject:
    """Share of the prompts whose most common answer is right; ties go to the earlier sample."""
    right = 0
    for group in prompts.values():
        ordered = sorted(group, key=itemgetter("sample"))
        winner = majority(vote_groups([item["extracted"] for item in ordered], scorer))
        right += winner is not None and ordered[winner]["correct"]
    return _record(right, len(prompts), len(prompts))


def _slice(items: Items, key: str) -> JsonObject:
    groups: dict[str, Items] = bucketize(items, lambda item: item["slices"][key])
    return {value: _rate(found, itemgetter("correct")) for value, found in sorted(groups.items())}
