"""The answer in a completion, and whether it matches the reference. No other module judges content.

`exact` compares text after NFKC, white space and case (`ignore_case: true` in
EleutherAI/lm-evaluation-harness at 47f16bf, `lm_eval/tasks/gsm8k/gsm8k.yaml`). `numeric` compares numbers read
by the rules of `numerals.py`; if the reference is no number (`Friday`), it compares as `exact` does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from tunix_rt.config.results import EvaluationConfig
from tunix_rt.evaluation.numerals import find_numerals, read_numeral, unify
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.trace import normalise


@dataclass(frozen=True, slots=True)
class Match:
    """Whether an answer matches the reference, and why."""

    equal: bool
    reason: str


def extract(prediction: Prediction, evaluation: EvaluationConfig) -> str | None:
    """The text that is judged, or None if there is none.

    `format`: the answer at its place in the format, if the model ended it with its end token (an answer cut off
    by the length limit may be half a number). `last_number`: the last numeral of the completion, ended or not
    (`flexible-extract` in EleutherAI/lm-evaluation-harness at 47f16bf, `lm_eval/tasks/gsm8k/gsm8k.yaml`).
    """
    if prediction.finish_reason == "error":
        return None
    if evaluation.extract == "last_number":
        numerals = find_numerals(prediction.completion)
        return numerals[-1] if numerals else None
    return prediction.answer if prediction.finish_reason == "stop" else None


def judge(prediction: Prediction, reference: str, evaluation: EvaluationConfig) -> tuple[str | None, Match]:
    """The extracted answer and its verdict against `reference`."""
    answer = extract(prediction, evaluation)
    if answer is not None:
        return answer, compare(answer, reference, evaluation)
    if prediction.finish_reason == "error":
        reason = f"failed: {prediction.error or 'no reason given'}"
    elif evaluation.extract == "last_number":
        reason = "no number in the completion"
    else:
        reason = "no end token" if prediction.finish_reason == "length" else "not in the format"
    return None, Match(False, reason)


def is_right(prediction: Prediction, evaluation: EvaluationConfig) -> bool:
    """Whether a prediction is right under `evaluation`; training and scoring use the same rule."""
    return judge(prediction, prediction.reference, evaluation)[1].equal


def compare(answer: str, reference: str, evaluation: EvaluationConfig) -> Match:
    """Judge `answer` against `reference` by `evaluation.answer` and `evaluation.relative_tolerance`."""
    right = read_numeral(reference) if evaluation.answer == "numeric" else None
    if right is None:
        equal = _text(answer) == _text(reference)
        return Match(equal, "same text" if equal else "other text")
    number = read_numeral(answer)
    if number is None:
        return Match(False, "not one number")
    if number.unit and right.unit and number.unit != right.unit:
        return Match(False, f"unit {number.unit}, expected {right.unit}")
    if number.value == right.value:
        return Match(True, "same number")
    # The tolerance as declared; Fraction(0.3) would be the binary number just below it.
    if abs(number.value - right.value) <= Fraction(str(evaluation.relative_tolerance)) * abs(right.value):
        return Match(True, f"within the relative tolerance {evaluation.relative_tolerance}")
    return Match(False, "other number")


def vote_key(answer: str | None, evaluation: EvaluationConfig) -> Fraction | str | None:
    """What answers must share to count as the same in a majority vote: their number, else their text."""
    if answer is None:
        return None
    number = read_numeral(answer) if evaluation.answer == "numeric" else None
    return _text(answer) if number is None else number.value


def contains(completion: str, reference: str, evaluation: EvaluationConfig) -> bool:
    """Whether the reference occurs anywhere in the completion, as a whole number or as whole words.

    With `numeric` and a number as reference, some number of the completion must equal it; else the normalised
    text must occur, not inside a longer word or number.
    """
    if not reference.strip():
        return False
    if evaluation.answer == "numeric" and read_numeral(reference) is not None:
        return any(compare(numeral, reference, evaluation).equal for numeral in find_numerals(completion))
    pattern = rf"(?<!\w)(?<![0-9][.,]){re.escape(_text(reference))}(?!\w)(?![.,][0-9])"
    return re.search(pattern, _text(completion)) is not None


def _text(text: str) -> str:
    return normalise(unify(text))
