"""Where the answer stands in a completion: declared markers, the strongest first.

- `format`: the place that the format has for it, if the model ended with its end token (an answer cut off by the
  length limit may be half a number).
- `hashes`: the line behind the first `####` (openai/grade-school-math at 2909d34, `grade_school_math/dataset.py`): a
  model that runs on writes a second problem with its own.
- `boxed`: the last complete `\\boxed{}` (hendrycks/math at 940d1bf, `modeling/dataset/util.py`,
  `last_boxed_only_string`), with those that it is listed with (`\\boxed{1} and \\boxed{2}`).
- `phrase`: behind the first `the answer is` or `Answer:` (EleutherAI/lm-evaluation-harness at 47f16bf,
  `lm_eval/tasks/gsm8k/gsm8k-cot.yaml`, `strict-match`), to the end of the sentence.
- `fence`: the last complete fenced block of Markdown, for code.
- `last_number`: the last numeral, whether the model ended or not (`flexible-extract` there, `gsm8k.yaml`).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from tunix_rt.config.results import Marker
from tunix_rt.evaluation.numerals import numerals_in
from tunix_rt.evaluation.plain import LONGEST, boxes
from tunix_rt.evaluation.scorer import Scorer
from tunix_rt.traces.prediction import Prediction

MOST_CANDIDATES = 20
"""More of one marker are not looked at."""
Candidate = tuple[str, int | None]
"""A text that may be the answer, and where it begins in the completion."""
_HASHES = re.compile(r"####[ \t]*([^\n]*)")
_PHRASE = re.compile(
    r"\banswer[ ]?(?:\*\*|__)?[ ]?(?::|is\b:?)[ ]?(?:\*\*|__)?[ \t]*(?:\n[ \t]*){0,2}([^\n]*?)(?=[.!](?:\s|$)|\n|$)",
    re.IGNORECASE,
)
_FENCE = re.compile(r"^```[^\n`]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s?(?=\{)")


@dataclass(frozen=True, slots=True)
class Extracted:
    """The text that is judged, the marker that found it, and whether the marker found other answers too."""

    text: str
    marker: Marker
    ambiguous: bool
    start: int | None
    """Where the text begins in the completion; None if it does not stand there as it is."""


def extract(prediction: Prediction, markers: Sequence[Marker], scorer: Scorer) -> Extracted | None:
    """The answer by the first marker that finds one; None if none does. Candidates are told apart by `scorer`."""
    if prediction.finish_reason == "error":
        return None
    for marker in markers:
        found: dict[str, int | None] = {}
        for text, start in CANDIDATES[marker](prediction):
            if text.strip():
                found.setdefault(text, start)
        if found:
            (first, start), *others = found.items()
            return Extracted(first, marker, any(not scorer.same(text, first) for text, _ in others), start)
    return None


def _format(prediction: Prediction) -> list[Candidate]:
    answer = prediction.answer
    return [_last(prediction, answer)] if answer is not None and prediction.finish_reason == "stop" else []


def _last(prediction: Prediction, text: str) -> Candidate:
    start = prediction.completion.rfind(text)
    return text, start if start >= 0 else None


def _hashes(prediction: Prediction) -> list[Candidate]:
    return _whole(prediction, _HASHES.finditer(prediction.completion))


def _phrase(prediction: Prediction) -> list[Candidate]:
    return _whole(prediction, _PHRASE.finditer(prediction.completion))


def _whole(prediction: Prediction, matches: Iterable[re.Match[str]]) -> list[Candidate]:
    """What follows each mark, but for the last one if the length limit cut it off."""
    found = islice(matches, MOST_CANDIDATES)
    cut = len(prediction.completion) if prediction.finish_reason == "length" else -1
    return [_stripped(match[1], match.start(1)) for match in found if match.end() != cut]


def _stripped(text: str, start: int) -> Candidate:
    return text.strip(), start + len(text) - len(text.lstrip())


def _boxed(prediction: Prediction) -> list[Candidate]:
    """The contents of the last boxes, the last one first."""
    text = prediction.completion
    begins = deque(_BOXED.finditer(text), maxlen=MOST_CANDIDATES)
    last = text[begins[0].start() : begins[-1].start() + LONGEST] if begins else ""
    found = [inside.strip() for inside in reversed(boxes(last[-MOST_CANDIDATES * LONGEST :]))]
    places = [_stripped(text[begin.end() + 1 : begin.end() + LONGEST], begin.end() + 1) for begin in reversed(begins)]
    return [(inside, next((at for rest, at in places if rest.startswith(inside)), None)) for inside in found]


def _fence(prediction: Prediction) -> list[Candidate]:
    """The last complete block of code alone: the ones before it may be parts of it."""
    return [(match[1], match.start(1)) for match in deque(_FENCE.finditer(prediction.completion), maxlen=1)]


def _last_number(prediction: Prediction) -> list[Candidate]:
    """The last numeral alone: the ones before it are what it was computed from."""
    return [_last(prediction, numeral) for numeral in deque(numerals_in(prediction.completion), maxlen=1)]


CANDIDATES: dict[Marker, Callable[[Prediction], list[Candidate]]] = {
    "format": _format,
    "hashes": _hashes,
    "boxed": _boxed,
    "phrase": _phrase,
    "fence": _fence,
    "last_number": _last_number,
}
"""Marker → the answers that it finds, the one that counts first."""
