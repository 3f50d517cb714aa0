"""Every answer of a run as the page shows it, grouped by prompt, wrong ones first; beside it another model's, if any.

A record that is missing (no verdict yet, no completion any more, a key that older runs lack) leaves its part out.
Offsets count characters (code points), probabilities of tokens are in thousandths.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from tunix_rt.errors import InputError
from tunix_rt.files import JsonObject, read_appended
from tunix_rt.runs.folder import RunFolder
from tunix_rt.traces.prediction import NO_REFERENCE, renamed

Key = tuple[str, int]
Flip = Literal["fixed", "broken"]
KEPT = ("reason", "extracted", "marker", "ambiguous", "malformed", "contains_answer", "confidence", "scores")
"""What is shown of an item as it stands."""


@dataclass(frozen=True, slots=True)
class Side:
    """The answers of one model."""

    title: str
    predictions: dict[Key, JsonObject]
    items: dict[Key, JsonObject]

    @classmethod
    def read(cls, title: str, predictions: Path, items: Path) -> Side:
        """Torn lines are left out; a file that is missing is empty. Raises DataError."""
        return cls(title, _by_key(predictions), {key: renamed(item) for key, item in _by_key(items).items()})

    def among(self, keys: Collection[Key]) -> Side:
        """Those of some answers."""
        kept = set(keys)
        both = ({key: line for key, line in lines.items() if key in kept} for lines in (self.predictions, self.items))
        return Side(self.title, *both)

    @property
    def answered(self) -> list[Key]:
        """Id and sample of every answer, in the order of the file."""
        return list(self.predictions | self.items)

    def correct(self, key: Key) -> bool | None:
        """The verdict; None if there is none."""
        item = self.items.get(key, {})
        return None if item.get("reason") == NO_REFERENCE else item.get("correct")


def _by_key(file: Path) -> dict[Key, JsonObject]:
    return {(str(line["id"]), int(line.get("sample", 0))): line for _, line in read_appended(file) if "id" in line}


def side_of(run: RunFolder, title: str) -> Side:
    """The answers of a run."""
    return Side.read(title, run.predictions, run.items)


def baseline_of(run: RunFolder) -> Side | None:
    """The answers of the model before training, if it was asked."""
    side = Side.read("before training", run.baseline_predictions, run.baseline_items)
    return side if side.predictions else None


def check_pairs(side: Side, other: Side) -> None:
    """Raises InputError unless both were asked the same: they share ids, and where they do, prompts and references."""
    both = [key for key in side.answered if key in other.predictions or key in other.items]
    if not both:
        raise InputError(f"{side.title} and {other.title} have no answer in common (by id and sample): other test data")
    for key in both:
        left, right = (_asked(one, key) for one in (side, other))
        if all(left) and all(right) and left != right:
            raise InputError(f"{side.title} and {other.title} were asked something else under the id {key[0]!r}")


def _asked(side: Side, key: Key) -> tuple[str, str]:
    item, prediction = side.items.get(key, {}), side.predictions.get(key, {})
    return str(item.get("prompt", "")), str(item.get("reference", prediction.get("reference", "")))


def flip_of(side: Side, other: Side, key: Key) -> Flip | None:
    """Whether the answer is right here and wrong there, or the reverse."""
    here, there = side.correct(key), other.correct(key)
    if here is None or there is None or here == there:
        return None
    return "fixed" if here else "broken"


def prompts(side: Side, other: Side | None) -> list[JsonObject]:
    """The prompts with their samples: first those with a wrong answer, then those without a verdict, then the rest,
    each in the order of the file (`place`)."""
    groups: dict[str, list[Key]] = {}
    for key in side.answered:
        groups.setdefault(key[0], []).append(key)
    shown = [{"place": at} | _prompt(side, other, sorted(keys)) for at, keys in enumerate(groups.values())]
    return sorted(shown, key=lambda prompt: _rank(sample.get("correct") for sample in prompt["samples"]))


def _rank(verdicts: Iterable[bool | None]) -> int:
    return min({False: 0, None: 1, True: 2}[verdict] for verdict in verdicts)


def _prompt(side: Side, other: Side | None, keys: Sequence[Key]) -> JsonObject:
    item, prediction = side.items.get(keys[0], {}), side.predictions.get(keys[0], {})
    samples = []
    for key in keys:
        shown = {"sample": key[1], **_answer(side, key)}
        if other is not None and (key in other.predictions or key in other.items):
            shown |= {"other": _answer(other, key), "flip": flip_of(side, other, key)}
        samples.append(_filled(shown))
    return {
        "id": keys[0][0],
        "prompt": item.get("prompt", prediction.get("prompt", "")),
        "reference": item.get("reference", prediction.get("reference")),
        "slices": item.get("slices", {}),
        "samples": samples,
    }


def _answer(side: Side, key: Key) -> JsonObject:
    item, prediction = side.items.get(key, {}), side.predictions.get(key, {})
    steps, completion = prediction.get("steps") or [], prediction.get("completion", "")
    checks = item.get("step_checks") or {}
    spans = step_spans(completion, steps)
    return _filled(
        {
            "correct": side.correct(key),
            **{name: item.get(name) for name in KEPT},
            "completion": completion,
            "error": prediction.get("error"),
            "finish": item.get("finish_reason", prediction.get("finish_reason")),
            "tokens": item.get("num_new_tokens", prediction.get("num_new_tokens")),
            "steps": None if spans else steps,
            "spans": spans,
            "kinds": step_kinds(len(steps), checks),
            "first_wrong": checks.get("first_wrong"),
            "contradiction": checks.get("contradiction"),
            "token_lengths": token_lengths(prediction.get("token_ends") or []),
            "probabilities": [round(1000 * math.exp(min(p, 0.0))) for p in prediction.get("logprobs") or []],
        }
    )


def detached_tokens(asked: Sequence[JsonObject]) -> list[tuple[list[int], list[int]]]:
    """Take the tokens' lengths and probabilities out of the prompts: each sample's, then its other's.

    They are most of the data, and a page shows its list before it has read them.
    """
    answers = [one for prompt in asked for sample in prompt["samples"] for one in (sample, sample.get("other")) if one]
    return [(answer.pop("token_lengths", []), answer.pop("probabilities", [])) for answer in answers]


def _filled(record: JsonObject) -> JsonObject:
    """Without what says nothing; `correct` stays, since its null means 'not judged', and so does a zero."""

    def says(value: object) -> bool:
        return value is not None and value is not False and (isinstance(value, int | float) or bool(value))

    return {key: value for key, value in record.items() if key == "correct" or says(value)}


def token_lengths(ends: Sequence[int]) -> list[int]:
    """How many characters each token adds to the completion: shorter to write down than where it ends."""
    return [end - before for before, end in pairwise([0, *ends])]


def step_spans(completion: str, steps: Sequence[str]) -> list[tuple[int, int]] | None:
    """Where the steps stand in the completion, in order; None if one does not stand there as it was read."""
    spans, end = [], 0
    for step in steps:
        start = completion.find(step, end)
        if start < 0:
            return None
        end = start + len(step)
        spans.append((start, end))
    return spans


def step_kinds(number: int, checks: JsonObject) -> list[str]:
    """What was found of each step; a wrong one is called wrong, whatever else it is."""
    verdicts, repeated, unused = (checks.get(name) or [] for name in ("verdicts", "repeated", "unused"))

    def kind(place: int) -> str:
        verdict = verdicts[place] if place < len(verdicts) else None
        if verdict is False:
            return "wrong"
        if place in repeated:
            return "repeated"
        if place in unused:
            return "unused"
        return "unchecked" if verdict is None else "right"

    return [kind(place) for place in range(number)]
