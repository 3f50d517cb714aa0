"""Runs contestants in turn on the same work, each in a separate process, measured in its CPU-seconds.

In: one lap's work for each. Out: laps, ratios of real tokens (or another unit of work) per CPU-second with their
spread, a table, JSON.
A round is one lap of each; the starter changes from round to round. Those that wait are idle. Before the rounds each
does one lap that does not count: it compiles, fills caches and starts thread pools, and its time beyond a measured
lap is reported as warm-up. Knows neither models nor frameworks.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.report import Table, versions
from tunix_rt import files
from tunix_rt.backends import heap
from tunix_rt.files import JsonObject
from tunix_rt.terminal import say

THEIRS = "transformers"
"""The contestant that the others are compared with."""
THREADS = 2
"""CPU threads of every contestant."""

ENVIRONMENT = {
    "OMP_NUM_THREADS": str(THREADS),
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
"""Environment of every contestant. Waiting threads sleep: torch's spin by default, and if another process takes one
of two cores, a product that costs 1.5 CPU-seconds then costs 9.6 (measured), for ours and theirs alike."""


@dataclass(frozen=True, slots=True)
class Lap:
    """One measured portion of work."""

    amount: int
    """What was processed: tokens of traces, padding not counted, or what else the benchmark counts."""
    cpu_seconds: float
    """CPU time of the process, all threads."""
    wall_seconds: float
    facts: dict[str, float] = field(default_factory=dict)
    """Evidence that the same work was done, for example steps or a loss."""
    peak_bytes: int = 0
    """The most memory that its process has held by the end of the lap."""

    @property
    def rate(self) -> float:
        """Amount per CPU-second."""
        return self.amount / self.cpu_seconds

    @property
    def clock_rate(self) -> float:
        """Amount per second of wall clock."""
        return self.amount / self.wall_seconds

    def with_facts(self, **facts: float) -> Lap:
        """The same lap, with more evidence."""
        return replace(self, facts=self.facts | facts)


@dataclass(frozen=True, slots=True)
class RaceResult:
    """All laps of a contestant."""

    warm_up: Lap
    laps: tuple[Lap, ...]

    @property
    def warm_up_seconds(self) -> float:
        """CPU-seconds by which the first lap exceeded the median one: compiling, mostly."""
        return self.warm_up.cpu_seconds - statistics.median(lap.cpu_seconds for lap in self.laps)


class Clock:
    """CPU and wall time of this process since the clock was created."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def lap(self, amount: int, **facts: float) -> Lap:
        """A lap from the creation of the clock until now."""
        spent, elapsed = time.process_time() - self._cpu, time.perf_counter() - self._wall
        return Lap(amount, spent, elapsed, facts, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


Ready = Callable[[], Lap]
"""Does one lap. Getting it ready (imports, data, weights) is not measured."""


def run(contestants: Mapping[str, Callable[[], Ready]], rounds: int) -> dict[str, RaceResult]:
    """Let every contestant get ready, warm up and do `rounds` laps in turn. They must be picklable."""
    names = list(contestants)
    with ExitStack() as stack:
        lap = {name: stack.enter_context(_process(make)) for name, make in contestants.items()}
        warm_ups = {name: _told(name, "warm-up", lap[name]()) for name in names}
        laps: dict[str, list[Lap]] = {name: [] for name in names}
        for number in range(rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                laps[name].append(_told(name, f"round {number + 1}", lap[name]()))
    return {name: RaceResult(warm_ups[name], tuple(laps[name])) for name in names}


def _told(name: str, when: str, lap: Lap) -> Lap:
    facts = "".join(f", {key} {value:.6g}" for key, value in lap.facts.items())
    say(f"{when}: {name}: {lap.amount} in {lap.cpu_seconds:.2f} CPU-s, {lap.wall_seconds:.2f} s{facts}")
    return lap


@contextmanager
def _process(make: Callable[[], Ready]) -> Any:
    """Start a process that gets itself ready; yields a function that makes it do a lap."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_serve, args=(make, its), daemon=True)
    before = os.environ.copy()
    os.environ |= ENVIRONMENT
    process.start()
    os.environ.clear()
    os.environ |= before
    its.close()  # so that a process that dies is noticed: EOFError here

    def lap() -> Lap:
        ours.send(True)
        done = ours.recv()
        assert isinstance(done, Lap)
        return done

    try:
        yield lap
    finally:
        ours.close()
        process.join()


def _serve(make: Callable[[], Ready], asked: Connection) -> None:
    heap.own_process()
    ready = make()
    while True:
        try:
            asked.recv()
        except EOFError:
            return
        asked.send(ready())


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours over theirs, per round: within a round both ran one after the other, on an equally busy machine."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
        """The ratio of paired numbers."""
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        return cls(statistics.median(ratios), min(ratios), max(ratios))

    def __str__(self) -> str:
        return f"{self.median:.2f} × ({self.lowest:.2f} to {self.highest:.2f})"


def ratios(
    results: Mapping[str, RaceResult], to: str = THEIRS, rate: Callable[[Lap], float] = lambda lap: lap.rate
) -> dict[str, Ratio]:
    """Amount per CPU-second (or another rate) of each contestant, relative to the contestant `to`."""
    theirs = [rate(lap) for lap in results[to].laps]
    return {name: Ratio.of([rate(lap) for lap in result.laps], theirs) for name, result in results.items()}


def hardest(results: Mapping[str, RaceResult], ours: Collection[str]) -> str:
    """The fastest of those that are not ours, by CPU-seconds."""
    peers = {name: result for name, result in results.items() if name not in ours}
    return max(peers, key=lambda name: statistics.median(lap.rate for lap in peers[name].laps))


def shown(title: str, results: Mapping[str, RaceResult], to: str = THEIRS, unit: str = "tokens") -> Table:
    """The table at the end. `unit`: what the amount of a lap counts."""
    columns = (
        "", unit, f"{unit} / CPU-s", "ratio", f"{unit} / s", "ratio on the clock", "warm-up CPU-s", "peak MB",
    )  # fmt: skip
    by_cpu, by_clock = ratios(results, to), ratios(results, to, lambda lap: lap.clock_rate)
    rows = [
        (
            name,
            f"{statistics.median(lap.amount for lap in result.laps):.0f}",
            f"{statistics.median(lap.rate for lap in result.laps):.3g}",
            "1" if name == to else str(by_cpu[name]),
            f"{statistics.median(lap.clock_rate for lap in result.laps):.3g}",
            "1" if name == to else str(by_clock[name]),
            f"{result.warm_up_seconds:.1f}",
            f"{max(lap.peak_bytes for lap in result.laps) / 1e6:,.0f}",
        )
        for name, result in results.items()
    ]
    return Table(title, columns, rows)


def show(title: str, results: Mapping[str, RaceResult], to: str = THEIRS, unit: str = "tokens") -> None:
    """Print the table."""
    shown(title, results, to, unit).show()


def write(
    path: Path, benchmark: str, settings: JsonObject, results: Mapping[str, RaceResult], to: str = THEIRS
) -> None:
    """Write everything as JSON: settings, versions, each lap, the ratios."""
    write_json(path, benchmark, settings | {"threads": THREADS}, numbers(results, to))


def numbers(results: Mapping[str, RaceResult], to: str = THEIRS) -> JsonObject:
    """Each lap and the ratios, as JSON."""
    contestants = {
        name: asdict(result) | {"warm_up_cpu_seconds": result.warm_up_seconds} for name, result in results.items()
    }
    found = {name: asdict(ratio) for name, ratio in ratios(results, to).items() if name != to}
    return {"contestants": contestants, "ratios": found}


def write_json(path: Path, benchmark: str, settings: JsonObject, numbers: JsonObject) -> None:
    """Write a benchmark's JSON, with the package versions in use."""
    record = {"benchmark": benchmark, "settings": settings, "versions": versions(), **numbers}
    files.write_json(path, record)
