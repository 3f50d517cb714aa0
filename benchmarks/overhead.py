"""What support for many devices costs on one: CPU time of training steps, against another checkout of the code.

Both run the same steps in processes that live side by side, a lap of each in turn, the starter changing; a pair of laps
gives a ratio, and what else the machine does meets both. Equal losses show that the work is the same.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.race import ENVIRONMENT

SCRIPT = Path(__file__).with_name("one_device.py")
HERE = Path(__file__).resolve().parents[1]
Lap = dict[str, float]


@dataclass(frozen=True, slots=True)
class Work:
    """The steps of a lap."""

    model: Path
    rows: int
    length: int
    steps: int


@dataclass(frozen=True, slots=True)
class Overhead:
    """CPU time of this code over that of the other."""

    ratio: float
    """The median of the pairs."""
    low: float
    high: float
    """Limits of a 95 % interval of it, from the order of the ratios (binomial, no normal distribution assumed)."""
    pairs: int
    seconds: float
    """Of a lap of the other code, the median."""
    same_losses: bool
    """Whether all losses are equal in every bit."""


def overhead(backend: str, work: Work, against: Path, pairs: int) -> Overhead:
    """Measure `pairs` pairs of laps, after one that does not count."""
    with _training(HERE, backend, work) as ours, _training(against.resolve(), backend, work) as theirs:
        found = [_pair(ours, theirs, number % 2 == 1) for number in range(pairs + 1)]
    measured = found[1:]
    ratios = sorted(new["cpu"] / old["cpu"] for new, old in measured)
    low, high = median_interval(pairs)
    return Overhead(
        ratio=statistics.median(ratios),
        low=ratios[low],
        high=ratios[high],
        pairs=pairs,
        seconds=statistics.median(old["cpu"] for _, old in measured),
        same_losses=all(new["loss"] == old["loss"] for new, old in found),
    )


def median_interval(count: int) -> tuple[int, int]:
    """Places, in order of size, of the limits of a 95 % interval of a median: 1.96 standard deviations of
    binomial(count, 1/2) around the middle."""
    reach = 0.98 * count**0.5
    return max(0, int(count / 2 - reach)), min(count - 1, int(count / 2 + reach))


def _pair(ours: Any, theirs: Any, swapped: bool) -> tuple[Lap, Lap]:
    if swapped:
        old, new = _lap(theirs), _lap(ours)
    else:
        new, old = _lap(ours), _lap(theirs)
    return new, old


def _lap(process: tuple[IO[str], IO[str]]) -> Lap:
    asked, answered = process
    asked.write("\n")
    asked.flush()
    lap: Lap = json.loads(answered.readline())
    return lap


@contextmanager
def _training(code: Path, backend: str, work: Work) -> Iterator[tuple[IO[str], IO[str]]]:
    """A process that does laps with the code of a checkout; its conf/ is found from the directory it starts in."""
    words: Sequence[object] = (
        sys.executable,
        SCRIPT,
        backend,
        work.model.resolve(),
        work.rows,
        work.length,
        work.steps,
    )
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process: Any = subprocess.Popen(list(map(str, words)), cwd=code, env=environment, **pipes)  # type: ignore[call-overload]
    try:
        yield process.stdin, process.stdout
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
