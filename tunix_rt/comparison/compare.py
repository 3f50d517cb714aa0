"""Two sides compared: the difference, what of it is beyond chance, where it comes from, and what more would show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tunix_rt.comparison.finding import Finding
from tunix_rt.comparison.flips import Flip, flips
from tunix_rt.comparison.metric import metric_of
from tunix_rt.comparison.pairs import Aligned, aligned
from tunix_rt.comparison.scores import Scores, scores_of
from tunix_rt.comparison.sides import Side, trained_apart
from tunix_rt.comparison.statistics import Estimate, estimate, holm

FEW_PROMPTS, FEW_SEEDS = 30, 5


@dataclass(frozen=True, slots=True)
class Slice:
    """The difference on the prompts of one value of a meta key."""

    name: str
    value: str
    prompts: int
    estimate: Estimate
    p_holm: float
    """Corrected for the number of slices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Finding):
    """The right side against the left."""

    sides: tuple[Side, Side]
    answers: Aligned
    scores: Scores

    @property
    def flips(self) -> tuple[list[Flip], list[Flip]]:
        """(harmful, beneficial)."""
        return flips(self.scores, self.metric.better)

    def slices(self) -> list[Slice]:
        """The difference on each slice that `evaluation.slices` names, with two prompts at least."""
        groups: dict[tuple[str, str], set[str]] = {}
        for key in self.answers.keys:
            for name, value in self.answers.items[0][key].get("slices", {}).items():
                groups.setdefault((name, value), set()).add(key[0])
        parts = {group: self.scores.among(ids) for group, ids in sorted(groups.items())}
        found = {group: estimate(part) for group, part in parts.items() if len(part.ids) > 1}
        corrected = holm([each.p_value() for each in found.values()])
        return [Slice(*group, each.prompts, each, p) for (group, each), p in zip(found.items(), corrected, strict=True)]

    def cautions(self) -> Iterator[str]:
        """What limits the statement."""
        runs = [len(side.runs) for side in self.sides]
        if max(runs) == 1:
            yield "one run a side: it holds for these two models; whether the change makes it takes other seeds too"
        elif min(runs) == 1:
            yield "one side is a single run, taken to vary with its seed as the other side does"
        if 1 < max(runs) < FEW_SEEDS:
            yield f"few seeds ({runs[0]} and {runs[1]} runs): their effect is hardly known, hence a wide interval"
        if self.estimate.of_prompts + self.estimate.of_seeds == 0:
            yield "every prompt has the same difference, so how much it varies is not known"
        if self.estimate.prompts < FEW_PROMPTS:
            yield f"few prompts ({self.estimate.prompts}): only a large difference can be shown"
        for side in self.sides:
            if len(side.runs) > 1 and not trained_apart(side):
                yield f"{side.name}: one training with several generation seeds; the interval is not of other trainings"
            for run in side.repeated:
                yield f"{run.name} is left out: config and seeds of another run of its side"
        if any(self.answers.left_out):
            yield f"compared on {len(self.answers.keys)} common answers; left out: {_counts(self.answers.left_out)}"
        if self.scores.left_out:
            yield f"{self.scores.left_out} answers have no {self.metric.name} on one side and are not counted"


def _counts(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def compared(
    sides: tuple[Side, Side], metric: str = "accuracy", margin: float | None = None, common: bool = False
) -> Comparison:
    """Compare two sides. Raises InputError if they cannot be compared (`pairs.aligned`) or have no such metric."""
    runs = [*sides[0].runs, *sides[1].runs]
    answers = aligned(runs, common, metric)
    found = metric_of(metric, [items[key] for items in answers.items for key in answers.keys])
    scores = scores_of(answers, found, len(sides[0].runs))
    return Comparison(
        metric=found, estimate=estimate(scores), margin=margin, sides=sides, answers=answers, scores=scores
    )
