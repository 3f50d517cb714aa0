"""Predictions and their traces → a verdict per item and the numbers of `metrics.json`.

docs/metrics.md describes both records.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from boltons.iterutils import bucketize

from tunix_rt.config.results import EvaluationConfig
from tunix_rt.errors import DataError, InputError
from tunix_rt.evaluation.answers import ask_ahead, is_right, judge, question_of
from tunix_rt.evaluation.calibration import calibration, confidence
from tunix_rt.evaluation.rates import Items, by_slice, lengths, rate
from tunix_rt.evaluation.reasoning import check_steps, reasoning
from tunix_rt.evaluation.samples import against, pass_at, votes
from tunix_rt.evaluation.scorer import Match, Scorer
from tunix_rt.files import JsonObject, to_json
from tunix_rt.traces.prediction import NO_REFERENCE, Prediction
from tunix_rt.traces.trace import Trace

SCHEMA_VERSION = 3
"""3: confidence, more checks of steps, every pass@k; 2: scorers by name, where an answer was found; 1: one scorer,
`exact` or `numeric`."""
UNJUDGED = Match(False, NO_REFERENCE)


@dataclass(frozen=True, slots=True)
class Score:
    """The verdicts, in the order of the predictions, and their totals."""

    items: list[JsonObject]
    metrics: JsonObject


def score(
    predictions: Sequence[Prediction],
    traces: Mapping[str, Trace],
    evaluation: EvaluationConfig,
    greedy: Sequence[Prediction] = (),
) -> Score:
    """Judge every prediction against its trace. A failed prediction is a wrong answer.

    `greedy`: further answers, one per prompt, that the majority of the samples is compared with.

    Raises DataError if there is nothing to score, a prediction is duplicated, belongs to no trace or was generated
    for another reference, or a prompt has too few samples for pass@k; InputError for a slice that no trace has.
    """
    _check(predictions, traces, evaluation)
    ask_ahead(predictions, traces, evaluation)
    items = [_item(prediction, traces[prediction.id], evaluation) for prediction in predictions]
    decisive: Scorer = evaluation.decisive
    judged = [item for item in items if decisive.judges(question_of(traces[item["id"]]))]
    prompts: dict[str, Items] = bucketize(items, itemgetter("id"))
    answered: dict[str, Items] = bucketize(judged, itemgetter("id"))
    samples = max(len(group) for group in prompts.values())
    metrics: JsonObject = {
        "schema_version": SCHEMA_VERSION,
        "n": len(items),
        "prompts": len(prompts),
        "missing": len(traces) * samples - len(items),
        **_rates(items, judged),
        "completion_tokens": lengths(items),
    }
    scores = {scorer.kind: _scored(items, scorer, scorer is decisive) for scorer in evaluation.scorers}
    further: JsonObject = {
        "scores": {name: record for name, record in scores.items() if record},
        "steps": reasoning(items, judged) if evaluation.steps == "arithmetic" else {},
        "without_reference": len(prompts) - len(answered),
        "calibration": calibration(judged),
        "pass_at": pass_at(answered, evaluation.pass_at),
        **(_voted(answered, decisive, _right(greedy, traces, evaluation)) if samples > 1 else {}),
    }
    slices = {key: by_slice(judged, key) for key in evaluation.slices}
    return Score(items, metrics | {key: found for key, found in further.items() if found} | {"slices": slices})


def _rates(items: Items, judged: Items) -> JsonObject:
    """The rates over single answers; `judged`: the items with something to compare them with."""
    return {
        "accuracy": rate(judged, itemgetter("correct")),
        "stop_rate": rate(items, lambda item: item["finish_reason"] == "stop"),
        "malformed_rate": rate(items, itemgetter("malformed")),
        "error_rate": rate(items, lambda item: item["finish_reason"] == "error"),
        "ambiguous_rate": rate(items, itemgetter("ambiguous")),
        "contains_answer": rate(judged, itemgetter("contains_answer")),
    }


def _voted(prompts: dict[str, Items], scorer: Scorer, greedy: Items) -> JsonObject:
    """What the samples of each prompt say together, and beside the greedy answers."""
    ballots = votes(prompts, scorer)
    voted = {"majority": rate(ballots, itemgetter("correct")), "self_consistency": calibration(ballots)}
    beside = {"greedy": rate(greedy, itemgetter("correct")), "majority_against_greedy": against(ballots, greedy)}
    return voted | (beside if greedy else {})


def _right(predictions: Sequence[Prediction], traces: Mapping[str, Trace], evaluation: EvaluationConfig) -> Items:
    """Of each prediction that there is something to compare with, its `id` and whether it is `correct`."""
    if predictions:
        _check(predictions, traces, evaluation)
        ask_ahead(predictions, traces, evaluation)
    verdicts = ((prediction.id, is_right(prediction, traces[prediction.id], evaluation)) for prediction in predictions)
    return [{"id": name, "correct": verdict} for name, verdict in verdicts if verdict is not None]


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
        "confidence": None if found is None else confidence(prediction, found.start, len(found.text)),
        "reference": trace.final_answer,
        "scores": {name: _verdict(other) for name, other in matches.items()},
        "contains_answer": scorer.contains(prediction.completion, question),
        "finish_reason": prediction.finish_reason,
        "malformed": prediction.answer is None and prediction.finish_reason != "error",
        "num_new_tokens": prediction.num_new_tokens,
    }
    if evaluation.steps == "arithmetic":
        item["step_checks"] = check_steps(prediction.steps, None if found is None else found.text)
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
    return rate(judged, lambda item: item["scores"][name]["correct"]) | means | facts
