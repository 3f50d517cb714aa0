"""What the page says first: the rate of right answers, whether it beats the model beside it, and what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tunix_rt.comparison.finding import Finding
from tunix_rt.comparison.metric import metric_of
from tunix_rt.comparison.pairs import Aligned
from tunix_rt.comparison.scores import scores_of
from tunix_rt.comparison.statistics import estimate
from tunix_rt.files import JsonObject
from tunix_rt.report.html.answers import Side, flip_of

MOST_REASONS = 5
MOST_PLACES = 4


@dataclass(frozen=True, slots=True)
class Against:
    """The comparison with the model beside it."""

    title: str
    verdict: Literal["better", "worse", "unclear", "unpaired"]
    sentence: str
    rate: JsonObject | None
    """Its rate of right answers."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A kind of wrong answer: a count, and the filters that show those answers."""

    label: str
    count: int
    filters: dict[str, str]


def against(side: Side, other: Side, metrics: JsonObject, others: JsonObject) -> Against:
    """Compares by prompts, as the command `compare` does: the same test, the same sentence."""
    rate = others.get("accuracy")
    keys = tuple(key for key in side.answered if None not in (side.correct(key), other.correct(key)))
    if not keys:
        return Against(other.title, "unpaired", _by_rates(metrics, others, other.title), rate)
    if len({name for name, _ in keys}) == 1:
        return Against(other.title, "unclear", f"One prompt says nothing of a difference from {other.title}.", rate)
    accuracy = metric_of("accuracy", [one.items[key] for one in (other, side) for key in keys])
    found = Finding(
        metric=accuracy, estimate=estimate(scores_of(Aligned(keys, (other.items, side.items), (0, 0)), accuracy, 1))
    )
    flips = Counter(flip_of(side, other, key) for key in keys)
    counted = f"{flips['fixed']:,} answers fixed, {flips['broken']:,} broken"
    sentence = f"{found.sentence()}, against {other.title}: {counted}."
    return Against(other.title, _verdict(found), sentence[0].upper() + sentence[1:], rate)


def _verdict(found: Finding) -> Literal["better", "worse", "unclear"]:
    if not found.estimate.differs():
        return "unclear"
    return "better" if found.estimate.difference > 0 else "worse"


def _by_rates(metrics: JsonObject, others: JsonObject, title: str) -> str:
    """Older runs keep no verdicts of the model before training: then only the two rates can be put side by side."""
    here, there = metrics.get("accuracy") or {}, others.get("accuracy") or {}
    if here.get("value") is None or there.get("value") is None:
        return f"Not compared with {title}: no verdicts on its answers."
    difference = 100 * (here["value"] - there["value"])
    return f"{difference:+.1f} points against {title}; its answers have no verdicts here, so no test is made."


def problems(side: Side, other: Side | None) -> list[Problem]:
    """The kinds of wrong answers, each with its count; kinds overlap."""
    wrong = [(key, item) for key, item in side.items.items() if side.correct(key) is False]
    reasons = Counter(str(item.get("reason")) for _, item in wrong).most_common(MOST_REASONS)
    places = Counter(_first_wrong(item) for _, item in wrong)
    found = [Problem(reason, count, {"verdict": "wrong", "reason": reason}) for reason, count in reasons]
    found += [_counted(side, "cut off by the length limit", "finish", "length")]
    found += [
        Problem(f"first wrong step: {place + 1}", count, {"verdict": "wrong", "first": str(place)})
        for place, count in sorted(_most_frequent(places))
    ]
    right = [item for key, item in side.items.items() if side.correct(key)]
    lucky = sum(_first_wrong(item) is not None for item in right)
    found += [Problem("right answer from a wrong step", lucky, {"steps": "lucky"})]
    contradicting = sum(bool((item.get("step_checks") or {}).get("contradiction")) for item in side.items.values())
    found += [Problem("last step and answer disagree", contradicting, {"steps": "contradiction"})]
    found += [Problem("malformed", sum(bool(i.get("malformed")) for i in side.items.values()), {"form": "malformed"})]
    if other is not None:
        broken = sum(flip_of(side, other, key) == "broken" for key in side.answered)
        found.insert(0, Problem(f"right {_there(other.title)}, wrong now", broken, {"flip": "broken"}))
    return [problem for problem in found if problem.count]


def _most_frequent(places: Counter[int | None]) -> list[tuple[int, int]]:
    """The first wrong steps of most answers with their counts; of equal counts the earlier step."""
    found = [(place, count) for place, count in places.items() if place is not None]
    return sorted(found, key=lambda pair: (-pair[1], pair[0]))[:MOST_PLACES]


def _there(title: str) -> str:
    return title if title.startswith("before") else f"in {title}"


def _first_wrong(item: JsonObject) -> int | None:
    place = (item.get("step_checks") or {}).get("first_wrong")
    return None if place is None else int(place)


def _counted(side: Side, label: str, name: str, value: str) -> Problem:
    count = sum(item.get("finish_reason") == value for item in side.items.values())
    return Problem(label, count, {name: value})


def most(found: Sequence[Problem]) -> int:
    """The largest count, for the length of bars; 1 if there is none."""
    return max((problem.count for problem in found), default=1)
