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
_HASHES = re.compile(r"####[ \t]*([^\n]*)")
_PHRASE = re.compile(
    r"\banswer[ ]?(?:\*\*|__)?[ ]?(?::|is\b:?)[ ]?(?:\*\*|__)?[ \t]*([^\n]*?)(?=[.!](?:\s|$)|\n|$)", re.IGNORECASE
)
_FENCE = re.compile(r"^```[^\n`]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s?(?=\{)")


@dataclass(frozen=True, slots=True)
class Extracted:
    """The text that is judged, the marker that found it, and whether the marker found other answers too."""

    text: str
    marker: Marker
    ambiguous: bool


def extract(prediction: Prediction, markers: Sequence[Marker], scorer: Scorer) -> Extracted | None:
    """The answer by the first marker that finds one; None if none does. Candidates are told apart by `scorer`."""
    if prediction.finish_reason == "error":
        return None
    for marker in markers:
        found = [text for text in dict.fromkeys(CANDIDATES[marker](prediction)) if text.strip()]
        if found:
            return Extracted(found[0], marker, any(not scorer.same(text, found[0]) for text in found[1:]))
    return None


def _format(prediction: Prediction) -> list[str]:
    return [prediction.answer] if prediction.answer is not None and prediction.finish_reason == "stop" else []


def _hashes(prediction: Prediction) -> list[str]:
    return _whole(prediction, _HASHES.finditer(prediction.completion))


def _phrase(prediction: Prediction) -> list[str]:
    return _whole(prediction, _PHRASE.finditer(prediction.completion))


def _whole(prediction: Prediction, matches: Iterable[re.Match[str]]) -> list[str]:
    """What follows each mark, but for the last one if the length limit cut it off."""
    found = islice(matches, MOST_CANDIDATES)
    cut = len(prediction.completion) if prediction.finish_reason == "length" else -1
    return [match[1].strip() for match in found if match.end() != cut]


def _boxed(prediction: Prediction) -> list[str]:
    """The contents of the last boxes, the last one first."""
    text = prediction.completion
    begins = deque((match.start() for match in _BOXED.finditer(text)), maxlen=MOST_CANDIDATES)
    last = text[begins[0] : begins[-1] + LONGEST] if begins else ""
    return [found.strip() for found in reversed(boxes(last[-MOST_CANDIDATES * LONGEST :]))]


def _fence(prediction: Prediction) -> list[str]:
    """The last complete block of code alone: the ones before it may be parts of it."""
    return [match[1] for match in deque(_FENCE.finditer(prediction.completion), maxlen=1)]


def _last_number(prediction: Prediction) -> list[str]:
    """The last numeral alone: the ones before it are what it was computed from."""
    return list(deque(numerals_in(prediction.completion), maxlen=1))


CANDIDATES: dict[Marker, Callable[[Prediction], list[str]]] = {
    "format": _format,
    "hashes": _hashes,
    "boxed": _boxed,
    "phrase": _phrase,
    "fence": _fence,
    "last_number": _last_number,
}
"""Marker → the answers that it finds, the one that counts first."""
