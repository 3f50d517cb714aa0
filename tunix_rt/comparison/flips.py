"""The prompts that one side answers and the other does not, with their texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunix_rt.comparison.pairs import Aligned, Key
from tunix_rt.comparison.scores import Scores
from tunix_rt.runs.folder import RunFolder
from tunix_rt.traces.prediction import read_predictions

Answer = tuple[int, Key]
"""The place of a run, and the key of an answer of it."""


@dataclass(frozen=True, slots=True)
class Flip:
    """A prompt whose value differs between the sides."""

    id: str
    left: float
    right: float
    """Mean value over the samples and runs of a side."""


@dataclass(frozen=True, slots=True)
class Told:
    """A flip with its texts."""

    flip: Flip
    prompt: str
    reference: str
    completions: tuple[str | None, str | None]
    """What each side wrote; of several runs and samples, one that shows the difference."""


def flips(scores: Scores, better: int) -> tuple[list[Flip], list[Flip]]:
    """(harmful, beneficial), the largest first; `better` -1: a smaller value is better."""
    sides = [scores.side(right).mean(axis=0) / scores.counts for right in (False, True)]
    every = [Flip(name, float(a), float(b)) for name, a, b in zip(scores.ids, *sides, strict=True)]
    changed = sorted(
        (flip for flip in every if abs(flip.right - flip.left) > 1e-12), key=lambda f: -abs(f.right - f.left)
    )
    sign = better or 1
    up = [flip for flip in changed if flip.right > flip.left]
    down = [flip for flip in changed if flip.right < flip.left]
    return (down, up) if sign > 0 else (up, down)


def told(found: Sequence[Flip], answers: Aligned, num_left: int, runs: Sequence[RunFolder]) -> list[Told]:
    """Flips with their texts; `runs` are those of `answers`, of which the first `num_left` are the left side."""
    samples: dict[str, list[Key]] = {flip.id: [] for flip in found}
    for key in answers.keys:
        if key[0] in samples:
            samples[key[0]].append(key)
    sides = (range(num_left), range(num_left, len(runs)))
    chosen = [
        {flip.id: _telling(samples[flip.id], answers, places, (flip.right > flip.left) == right) for flip in found}
        for places, right in zip(sides, (False, True), strict=True)
    ]
    texts = _completions(runs, [answer for side in chosen for answer in side.values()])
    lines = []
    for flip in found:
        item = answers.items[0][samples[flip.id][0]]
        pair = (texts.get(chosen[0][flip.id]), texts.get(chosen[1][flip.id]))
        lines.append(Told(flip, item["prompt"], item["reference"], pair))
    return lines


def _telling(keys: Sequence[Key], answers: Aligned, places: Sequence[int], correct: bool) -> Answer:
    """An answer of a side that is right (or wrong); else its first one."""
    given = [(place, key) for place in places for key in keys]
    return next((it for it in given if bool(answers.items[it[0]][it[1]]["correct"]) == correct), given[0])


def _completions(runs: Sequence[RunFolder], wanted: Sequence[Answer]) -> dict[Answer, str]:
    """The texts of some answers, as far as the predictions are there."""
    found: dict[Answer, str] = {}
    for place in sorted({place for place, _ in wanted}):
        if runs[place].predictions.exists():
            keys = {key for other, key in wanted if other == place}
            lines = ((line.id, line.sample, line.completion) for line in read_predictions(runs[place].predictions))
            found |= {(place, (name, sample)): text for name, sample, text in lines if (name, sample) in keys}
    return found
