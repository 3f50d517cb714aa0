"""The child process behind rewards (`reward.py`): the scorers' numbers for one answer after the other.

Its arguments: the section `evaluation` with the scorers that are needed, the names of the numbers, both as JSON, and
the bytes that it may use.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from math import isfinite

from pydantic import TypeAdapter

from tunix_rt.config.results import EvaluationConfig
from tunix_rt.errors import DataError, TunixError
from tunix_rt.evaluation.answers import ask_ahead, judge
from tunix_rt.evaluation.child import serve
from tunix_rt.evaluation.scorer import Match, Question, ScorerFailed
from tunix_rt.evaluation.steps import check_step
from tunix_rt.files import JsonObject
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.trace import Trace

ANSWER, STEPS = "answer", "steps"


def respond(request: JsonObject, evaluation: EvaluationConfig, names: Sequence[str]) -> JsonObject:
    """The `values` of one answer; of several, under `ahead`, nothing: their scorers ask ahead.

    What the user has to mend (a trace without tests, an endpoint that is away) is in `refused`.
    """
    try:
        if "ahead" in request:
            asked = [_read(one) for one in request["ahead"]]
            traces = {said.id: Trace(said.id, q.prompt, (), q.reference, q.meta) for said, q in asked}
            ask_ahead([said for said, _ in asked], traces, evaluation)
            return {}
        values = dict(zip(names, numbers(*_read(request), evaluation, names), strict=True))
        return {"values": values} if all(map(isfinite, values.values())) else {"error": "not finite"}
    except ScorerFailed as error:
        return {"error": error.reason}
    except TunixError as error:
        return {"refused": type(error).__name__, "message": str(error)}


def numbers(
    prediction: Prediction, question: Question, evaluation: EvaluationConfig, names: Sequence[str]
) -> Iterator[float]:
    """The number that each name means, by the rules of `evaluate`. Raises DataError: there is no reference."""
    _, matches = judge(prediction, question, evaluation)
    if ANSWER in names and evaluation.decisive.kind not in matches:
        raise DataError(f"prompt {prediction.id}: no reference to compare an answer with, so there is no reward")
    for name in names:
        if name == STEPS:
            yield share_right(prediction.steps)
        else:
            yield _value(matches, evaluation.decisive.kind if name == ANSWER else name)


def share_right(steps: Sequence[str]) -> float:
    """The share of right steps among those that can be checked; 0 if none can."""
    verdicts = [verdict for verdict in map(_step, steps) if verdict is not None]
    return sum(verdicts) / len(verdicts) if verdicts else 0.0


_step = lru_cache(maxsize=100_000)(check_step)
"""Samples of a group, and of later ones, share many of their steps."""


def _value(matches: Mapping[str, Match], name: str) -> float:
    """1 if scorer `KIND` says right, else 0; for `KIND.VALUE` a further number that it gives."""
    kind, dot, value = name.partition(".")
    match = matches.get(kind)
    if match is None:
        return 0.0
    return float(match.values.get(value, 0.0)) if dot else float(match.equal)


def _read(request: JsonObject) -> tuple[Prediction, Question]:
    said = request["said"]
    facts = {"prompt": "", "reference": "", "num_prompt_tokens": 0, "num_new_tokens": 0, "logprobs": (), "error": None}
    return Prediction(**said | facts | {"steps": tuple(said["steps"])}), Question(**request["asked"])


def main(given: str, names: str, memory: str) -> None:
    """Judge until the questions end."""
    evaluation = TypeAdapter(EvaluationConfig).validate_json(given)
    for scorer in evaluation.scorers:
        scorer.start()
    serve(partial(respond, evaluation=evaluation, names=json.loads(names)), int(memory))


if __name__ == "__main__":
    main(*sys.argv[1:])
