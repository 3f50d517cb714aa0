"""Which questions are asked together: planned once over all of them, and kept in all sessions of a run.

The numbers of an answer depend on its batch (its padding, the number of rows) in their last digits. So a batch is
asked completely or not at all, and the plan stays as it was when the run began; with another
`generation.batch_size` only the questions not yet answered are planned again.
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
    """Number of questions that can be asked."""
    batch_size: int
    """`generation.batch_size` of the last session."""
    segments: tuple[tuple[int, int], ...]

    def batches(self) -> Iterator[Batch]:
        """All batches in order."""
        for (first, size), (end, _) in pairwise((*self.segments, (self.total, 0))):
            for start in range(first, end, size):
                yield Batch(start, min(start + size, end), size)

    def resized(self, batch_size: int, is_whole: Callable[[Batch], bool]) -> BatchPlan:
        """A plan in which incomplete batches have size `batch_size`."""
        segments: list[tuple[int, int]] = []
        firsts = {first for first, _ in self.segments}
        stays = False
        for batch in self.batches():
            stayed, stays = stays, is_whole(batch)
            if not segments or stays != stayed or (stays and batch.start in firsts):
                segments.append((batch.start, batch.size if stays else batch_size))
        return BatchPlan(self.total, batch_size, tuple(segments))


def plan_file(predictions: Path) -> Path:
    """The plan's file, next to the file of predictions."""
    return predictions.with_suffix(".batches.json")


def plan_batches(file: Path, total: int, batch_size: int, is_whole: Callable[[Batch], bool]) -> BatchPlan:
    """The plan in `file` if it is for `total` questions, otherwise a new one; written to `file`."""
    plan = recorded_plan(file)
    if plan is None or plan.total != total:
        plan = BatchPlan(total, batch_size, ((0, batch_size),))
    if plan.batch_size != batch_size:
        plan = plan.resized(batch_size, is_whole)
    write_json(file, asdict(plan))
    return plan


def recorded_plan(file: Path) -> BatchPlan | None:
    """The plan in a file; None if there is none or it is damaged."""
    try:
        record = read_json(file)
        segments = tuple((int(start), int(size)) for start, size in record["segments"])
        plan = BatchPlan(int(record["total"]), int(record["batch_size"]), segments)
    except (DataError, KeyError, TypeError, ValueError):  # missing or cut: complete batches stay complete
        return None
    starts = [start for start, _ in segments]
    valid = starts[:1] == [0] and starts == sorted(set(starts)) and all(size > 0 for _, size in segments)
    return plan if valid else None
