"""A sweep's metric against one thing that was varied, a line for each value of another, with intervals over seeds.

For grids over one or two keys, at least one of them a number. The values of `SEEDS` repeat a point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from tunix_rt.comparison.pairs import SEEDS
from tunix_rt.config.execution import Published
from tunix_rt.files import JsonObject
from tunix_rt.runs.rates import Interval, interval, lookup, shown
from tunix_rt.sweeps.plots import numbers
from tunix_rt.sweeps.ranking import Member, varying


@dataclass(frozen=True, slots=True)
class Point:
    """The members with one value on the axis, and one of the lines."""

    line: str
    """The value of the other key; empty if there is none."""
    x: float
    mean: float
    low: float
    """Low end of the 95 % interval of the mean (`interval_of`)."""
    high: float
    values: tuple[float, ...]
    """One per seed."""


@dataclass(frozen=True, slots=True)
class Curves:
    """What is drawn."""

    metric: str
    x: str
    """The key on the axis."""
    line: str | None
    """The key whose values are the lines."""
    seeds: tuple[str, ...]
    """The keys that repeat a point."""
    points: tuple[Point, ...]
    """Line after line in their declared order, each from its smallest `x`."""

    def lines(self) -> dict[str, list[Point]]:
        """The points of each line."""
        found: dict[str, list[Point]] = {}
        for point in self.points:
            found.setdefault(point.line, []).append(point)
        return found


def curves_of(members: Sequence[Member], metric: str) -> Curves | None:
    """The curves of the finished members; None if what they varied gives none.

    Raises InputError if the metric is not in `metrics.json`.
    """
    done = [member for member in members if member.metrics is not None]
    keys = varying([member.record.values for member in done])
    seeds = tuple(key for key in keys if key in SEEDS)
    axes = [key for key in keys if key not in seeds]
    counts = {key: len(set(column)) for key in axes if numbers(column := _column(done, key)) is not None}
    if not counts or len(axes) > 2:
        return None
    x = max(counts, key=counts.__getitem__)
    line = next((key for key in axes if key != x), None)
    names = [""] * len(done) if line is None else _column(done, line)
    groups: dict[str, dict[float, list[Member]]] = {}
    for name, value, member in zip(names, _column(done, x), done, strict=True):
        groups.setdefault(name, {}).setdefault(float(value), []).append(member)
    points = (_point(name, at, group[at], metric) for name, group in groups.items() for at in sorted(group))
    return Curves(metric, x, line, seeds, tuple(points))


def _column(members: Sequence[Member], key: str) -> list[str]:
    return [member.record.values.get(key, "") for member in members]


def _point(line: str, x: float, members: Sequence[Member], metric: str) -> Point:
    metrics = [member.metrics or {} for member in members]
    values = [lookup(each, metric) for each in metrics]
    between = interval_of(values, [interval(each, metric) for each in metrics])
    return Point(line, x, fmean(values), between.low, between.high, tuple(values))


def interval_of(values: Sequence[float], own: Sequence[Interval | None]) -> Interval:
    """The 95 % interval of the mean of one value per seed; `own`: the interval of each, if it is a rate.

    Student's t over the seeds (`scipy.stats.t.interval`). For a rate it stays in [0, 1], and reaches at least as far as
    the members' own intervals do on average: they share one test set, whose chance no seed takes away.
    """
    low = high = mean = fmean(values)
    if len(set(values)) > 1:
        from scipy import stats

        low, high = map(float, stats.t.interval(0.95, len(values) - 1, mean, stats.sem(values)))
    spans = [span for span in own if span is not None]
    if len(spans) < len(own):
        return Interval(low, high)
    least, most = fmean(span.low for span in spans), fmean(span.high for span in spans)
    return Interval(max(0.0, min(low, least)), min(1.0, max(high, most)))


def rows(curves: Curves) -> tuple[list[str], list[list[str]]]:
    """Column names and a row for each point."""
    columns = [curves.line or "", curves.x, f"mean {curves.metric}", "95 % interval", "members"]
    lines = [
        [p.line, f"{p.x:g}", shown(p.mean), f"[{shown(p.low)}, {shown(p.high)}]", str(len(p.values))]
        for p in curves.points
    ]
    return columns, lines


def record(curves: Curves, published: Published | None) -> JsonObject:
    """The contents of `curves.json`."""
    return asdict(curves) | {"published": None if published is None else asdict(published)}
