"""Which questions are asked together: planned once over all of them, and kept over every session of a run.

Numbers of an answer depend on its batch (its padding, the number of rows) in their last digits. So a batch is
asked whole or not at all, and the plan stays as it was when the run began; with another `generation.batch_size` only
what is not answered yet is planned anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from tunix_rt.errors import DataError
from tunix_rt.files import read_json, write_json


@dataclass(frozen=True, slots=True)
class Batch:
    """Questions `start` to `stop`, in order of length. The last of a segment may be smaller than `size`."""

    start: int
    stop: int
    size: int


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """From each `(start, size)` of `segments` on, batches have that size, until the next segment or `total`."""

    total: int
    """Questions that can be asked."""
    batch_size: int
    """`generation.batch_size` of the last session."""
    segments: tuple[tuple[int, int], ...]

    def batches(self) -> Iterator[Batch]:
        """All of them in order."""
        for (first, size), (end, _) in pairwise((*self.segments, (self.total, 0))):
            for start in range(first, end, size):
                yield Batch(start, min(start + size, end), size)

    def resized(self, batch_size: int, is_whole: Callable[[Batch], bool]) -> BatchPlan:
        """Batches that are not whole have `batch_size` from now on."""
        segments: list[tuple[int, int]] = []
        firsts = {first for first, _ in self.segments}
        stays = False
        for batch in self.batches():
            stayed, stays = stays, is_whole(batch)
            if not segments or stays != stayed or (stays and batch.start in firsts):
                segments.append((batch.start, batch.size if stays else batch_size))
        return BatchPlan(self.total, batch_size, tuple(segments))


def plan_file(predictions: Path) -> Path:
    """Where the plan of a file of predictions is: beside it."""
    return predictions.with_suffix(".batches.json")


def plan_batches(file: Path, total: int, batch_size: int, is_whole: Callable[[Batch], bool]) -> BatchPlan:
    """The plan of `total` questions that `file` holds; made and written there where it holds none of as many."""
    plan = recorded_plan(file)
    if plan is None or plan.total != total:
        plan = BatchPlan(total, batch_size, ((0, batch_size),))
    if plan.batch_size != batch_size:
        plan = plan.resized(batch_size, is_whole)
    write_json(file, asdict(plan))
    return plan


def recorded_plan(file: Path) -> BatchPlan | None:
    """The plan that a file holds; None where there is none, or it is damaged."""
    try:
        record = read_json(file)
        segments = tuple((int(start), int(size)) for start, size in record["segments"])
        plan = BatchPlan(int(record["total"]), int(record["batch_size"]), segments)
    except (DataError, KeyError, TypeError, ValueError):  # not there, or cut: whole batches of its size stay whole
        return None
    starts = [start for start, _ in segments]
    valid = starts[:1] == [0] and starts == sorted(set(starts)) and all(size > 0 for _, size in segments)
    return plan if valid else None
