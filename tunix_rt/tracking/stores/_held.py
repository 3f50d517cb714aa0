"""Which values a run has in a store that reads them back: everything may be sent again, and only the rest is added."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from tunix_rt.tracking.tail import Point

Mark = tuple[str, int, int]
"""Key (or tag), step and time (Unix milliseconds) of a value."""


class Held:
    """The values that are there."""

    def __init__(self, marks: Iterable[Mark] = ()) -> None:
        self._marks = set(marks)

    def missing(self, keys: Iterable[str], step: int, time: int) -> list[str]:
        """Those of the keys that have no value at this step and time."""
        return [key for key in keys if (key, step, time) not in self._marks]

    def update(self, marks: Iterable[Mark]) -> None:
        """These are there now."""
        self._marks.update(marks)


def by_moment(points: Sequence[Point]) -> Iterator[tuple[int, int, list[Point]]]:
    """(step, time, its points) of each step and time, in order of time."""
    for (time, step), together in groupby(sorted(points, key=_moment), key=_moment):
        yield step, time, list(together)


def _moment(point: Point) -> tuple[int, int]:
    return point.time, point.step
