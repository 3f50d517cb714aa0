"""What completions are worth: the product's own verdicts as numbers, weighted by name (docs/rewards.md).

The scorers work in a child process (`verdicts.py`) with a limit of time for each answer and of memory. An answer that
exceeds one has no verdict: its numbers are 0, and it is counted. `format` and `length` need no look at the text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from pydantic_core import to_jsonable_python

from tunix_rt.config.results import EvaluationConfig
from tunix_rt.config.rollout import RewardConfig
from tunix_rt.errors import DataError, MachineError
from tunix_rt.evaluation.answers import question_of
from tunix_rt.evaluation.child import Child
from tunix_rt.evaluation.scorer import Scorer
from tunix_rt.files import JsonObject, to_json
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.trace import Trace

FORMAT, LENGTH = "format", "length"
FREE_SHARE = 0.8
"""Of `max_new_tokens`, up to which a completion costs nothing: 16,384 of 20,480 in DAPO."""
AHEAD_SECONDS = 3_600.0
"""For scorers that ask elsewhere, all answers of a batch together; each has its own limits."""


@dataclass(frozen=True, slots=True)
class Reward:
    """What one completion is worth."""

    total: float
    """Σ weight × component."""
    components: dict[str, float]
    """By name, not weighted."""


class Rewarder:
    """Judges batches of answers. A context manager: it starts the child, which gets ready while other work goes on."""

    def __init__(
        self, evaluation: EvaluationConfig, reward: RewardConfig, max_new_tokens: int, begun: bool = False
    ) -> None:
        """`begun`: answers were judged before, in another process."""
        self.failed = 0
        """Answers so far without a verdict: it took too long, or the child died of it."""
        self._reward, self._max_new_tokens, self._any = reward, max_new_tokens, begun
        self._judged = tuple(name for name in reward.weights if name not in (FORMAT, LENGTH))
        kinds = {name.partition(".")[0] for name in self._judged}
        used = [scorer for scorer in evaluation.scorers if scorer is evaluation.decisive or scorer.kind in kinds]
        self._asks_ahead = any(type(scorer).ask_ahead is not Scorer.ask_ahead for scorer in used)
        self._child = Child(
            "tunix_rt.evaluation.verdicts",
            json.dumps(to_jsonable_python(replace(evaluation, scorers=tuple(used)))),
            json.dumps(self._judged),
            str(reward.megabytes * 2**20),
        )

    def __enter__(self) -> Self:
        self._child.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._child.stop()

    def rewards(self, predictions: Sequence[Prediction], traces: Mapping[str, Trace]) -> list[Reward]:
        """The reward of each prediction, by the trace of its id.

        Raises DataError if there is nothing to compare an answer with, or what a scorer needs is missing in a trace;
        if not one answer of the first batch has a verdict; MachineError if the child does not start, or a scorer that
        asks elsewhere gets no reply.
        """
        found = self._verdicts(predictions, traces)
        return [self._whole(prediction, values) for prediction, values in zip(predictions, found, strict=True)]

    def _whole(self, prediction: Prediction, values: Mapping[str, float]) -> Reward:
        weights = self._reward.weights
        own = {FORMAT: in_format(prediction), LENGTH: overlong(prediction, self._max_new_tokens)}
        components = {name: values[name] if name in values else own.get(name, 0.0) for name in weights}
        return Reward(sum(weights[name] * components[name] for name in sorted(weights)), components)

    def _verdicts(self, predictions: Sequence[Prediction], traces: Mapping[str, Trace]) -> list[Mapping[str, float]]:
        """For each prediction the numbers of the child; empty if it gave none. The same text is judged once."""
        if not self._judged:
            return [{} for _ in predictions]
        requests = [_request(prediction, traces[prediction.id]) for prediction in predictions]
        texts = list(map(to_json, requests))
        different = dict(zip(texts, requests, strict=True))
        if self._asks_ahead:
            self._ahead(list(different.values()))
        replies = self._child.ask_each(list(different.values()), self._reward.seconds)
        values = dict(zip(different, map(_values, replies), strict=True))
        self.failed += sum(not values[text] for text in texts)
        self._check_any(replies)
        return [values[text] for text in texts]

    def _check_any(self, replies: Sequence[JsonObject | None]) -> None:
        """A scorer that always fails is a mistake of ours or the user's, not of the model."""
        self._any = self._any or any(reply is not None and "values" in reply for reply in replies)
        if replies and not self._any:
            why = {
                str(reply["error"]) if reply else f"took longer than {self._reward.seconds:g} s" for reply in replies
            }
            what = f"reward: none of the first {len(replies)} answers has a verdict ({', '.join(sorted(why))})"
            raise DataError(f"{what}; check the scorers of this experiment and objective.reward")

    def _ahead(self, requests: Sequence[JsonObject]) -> None:
        if (reply := self._child.ask({"ahead": requests}, AHEAD_SECONDS)) is None:
            raise MachineError(f"the scorers asked for {AHEAD_SECONDS:g} s, or died; the same command goes on")
        _values(reply)


def in_format(prediction: Prediction) -> float:
    """1 if the model ended with its end token and the completion is in the format, else 0."""
    return float(prediction.answer is not None and prediction.finish_reason == "stop")


def overlong(prediction: Prediction, max_new_tokens: int) -> float:
    """The soft punishment of long completions, in [-1, 0] (DAPO, arXiv 2503.14476, equation 13).

    0 up to `FREE_SHARE` of `max_new_tokens`, from there on a straight line down to -1 at all of them; -1 if cut off.
    """
    if prediction.finish_reason != "stop":
        return -1.0
    over = prediction.num_new_tokens - FREE_SHARE * max_new_tokens
    return -min(max(over / ((1 - FREE_SHARE) * max_new_tokens), 0.0), 1.0)


def _request(prediction: Prediction, trace: Trace) -> JsonObject:
    said = {
        "id": prediction.id,
        "sample": 0,
        "completion": prediction.completion,
        "steps": prediction.steps,
        "answer": prediction.answer,
        "finish_reason": prediction.finish_reason,
    }
    question = question_of(trace)
    return {"said": said, "asked": {name: getattr(question, name) for name in ("reference", "prompt", "meta")}}


def _values(reply: JsonObject | None) -> Mapping[str, float]:
    """Raises what the user has to mend."""
    if reply is not None and "refused" in reply:
        raise (MachineError if reply["refused"] == MachineError.__name__ else DataError)(reply["message"])
    return {} if reply is None else reply.get("values", {})
