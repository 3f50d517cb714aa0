"""Several devices against one: bytes that are sent, cost on one device, weak scaling, memory of each, against `plan`.

Models are drawn fresh and rows are random tokens, so nothing is downloaded. The devices are parts of the CPU: what is
sent and held is as on any device, the times are not.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import race
from benchmarks.fresh import Run, model_folder
from benchmarks.isolated import Call, Outcome, attempt
from benchmarks.overhead import Overhead, Work, overhead
from benchmarks.report import Table, about, mebibytes, write_markdown
from benchmarks.workload import installed
from tunix_rt.config.choices import BACKENDS
from tunix_rt.files import JsonObject
from tunix_rt.terminal import say

MODELS = Path("data/benchmarks/models")
LIMIT = 600.0
"""Seconds that a process may take."""
TICK = 0.01
"""Resolution of CPU times, seconds."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    model: str
    small: str
    """The model of the cost on one device: in a short step a constant cost shows most."""
    rows: int
    """Of each device."""
    length: int
    steps: int
    rounds: int
    laps: int
    pairs: int


FULL = Sizes("25 M", "small", rows=4, length=256, steps=2, rounds=5, laps=3, pairs=40)
QUICK = Sizes("tiny", "tiny", rows=4, length=32, steps=1, rounds=1, laps=1, pairs=2)


def runs(backend: Any, sizes: Sizes) -> dict[str, Run]:
    """One device, two with copies, two with parts of the weights, and those with two micro-batches."""
    one = Run(backend, "cpu", sizes.model, rows=sizes.rows, length=sizes.length, steps=sizes.steps)
    two = replace(one, devices=2, rows=2 * sizes.rows, threads=2)
    return {
        "1": one,
        "2 data": two,
        "2 data, accumulated": replace(two, rows_at_once=sizes.rows // 2),
        "2 shard": replace(two, shard=2),
        "2 shard, accumulated": replace(two, shard=2, rows_at_once=sizes.rows // 2),
    }


Found = dict[tuple[str, str, str], list[Outcome]]
"""By function, backend and mesh: what came of it, once for each round."""
WEAK = ("1", "2 data", "2 shard")


def measure(backends: Sequence[str], functions: Sequence[str], sizes: Sizes, together: bool) -> Found:
    """Call the functions of `benchmarks.steps`; `together`: all those of a backend in one process."""
    found: Found = {}
    for backend in backends:
        every = [(key, call) for function in functions for key, call in _calls(function, backend, sizes)]
        every = sorted(every, key=lambda one: one[0][2] == "1") if together else every
        for group in [every] if together else [[one] for one in every]:
            for (key, _), done in zip(group, attempt([call for _, call in group], LIMIT), strict=True):
                found.setdefault(key, []).append(done)
                say(f"{', '.join(key)}: {done.failure or 'done'} ({done.seconds:.1f} s)")
    return found


def _calls(function: str, backend: str, sizes: Sizes) -> Iterator[tuple[tuple[str, str, str], Call]]:
    """Laps in turns, so that each round has its own one device; of what is sent one call is enough."""
    meshes = runs(backend, sizes)
    names = {"sent": list(meshes)[1:], "memory": list(meshes), "laps": list(WEAK)}[function]
    more = {"count": sizes.laps} if function == "laps" else {}
    for _ in range(sizes.rounds if function == "laps" else 1):
        for name in names:
            arguments = {"root": str(MODELS), "run": meshes[name].to_json(), **more}
            yield (function, backend, name), Call(f"benchmarks.steps:{function}", arguments)


def sent(found: Found) -> Table:
    """Bytes sent in a step."""
    rows = [
        (f"{backend}, {name}", *cells)
        for (function, backend, name), (done,) in found.items()
        if function == "sent"
        for cells in _sent(done)
    ]
    columns = ("", "collective", "counted", "theory", "counted / theory")
    note = (
        "Bytes that one device sends in a step: counted at the calls of torch.distributed and in jax's compiled "
        "program, against what `plan` says. What the leader tells each follower is its rows, over a socket."
    )
    return Table("bytes sent in a step", columns, rows, note)


def _sent(done: Outcome) -> Iterator[tuple[str, ...]]:
    if done.result is None:
        yield done.failure or "", "", "", ""
        return
    counted, theory = done.result["counted"], done.result["theory"]
    for kind in theory:
        a, b = counted.get(kind, 0), theory[kind]
        if a or b:
            yield kind, f"{a:,}", f"{b:,}", f"{a / b:.4f}" if b else "none foreseen"
    if done.result["channel"]:
        yield "leader to a follower", f"{done.result['channel']:,}", "", ""


def memory(found: Found) -> Table:
    """Peak memory of a device."""
    rows = [
        (f"{backend}, {name}", *_memory(done))
        for (function, backend, name), (done,) in found.items()
        if function == "memory"
    ]
    columns = ("", "measured", "plan", "measured / plan")
    note = (
        "Resident memory of one device (of its process; on jax the process has both, and it is divided) at its peak, "
        "above what the process held before the weights."
    )
    return Table("memory of a device", columns, rows, note)


def _memory(done: Outcome) -> tuple[str, ...]:
    if done.result is None:
        return done.failure or "", "", ""
    most, plan = max(done.result["measured"]), done.result["plan"]
    return mebibytes(most), mebibytes(plan), f"{most / plan:.2f}"


def weak(found: Found) -> Table:
    """Twice the rows on twice the devices, each with one thread."""
    rows = [
        _weak(f"{backend}, {name}", name, outcomes, found[function, backend, WEAK[0]])
        for (function, backend, name), outcomes in found.items()
        if function == "laps"
    ]
    columns = ("", "tokens / s", "efficiency", "tokens / CPU-s", "efficiency in CPU time")
    note = (
        "Efficiency: tokens per second and device, over those of one device, the median of the rounds (each with its "
        "own one device). In CPU time: the same by the CPU time of all processes, which a busy machine disturbs less, "
        "but which counts waiting where a library spins."
    )
    return Table("weak scaling: 1 and 2 devices, one thread each", columns, rows, note)


def _weak(label: str, name: str, found: list[Outcome], base: list[Outcome]) -> tuple[str, ...]:
    failed = [one.failure for one in (*found, *base) if one.result is None]
    if failed:
        return label, failed[0] or "", "", "", ""
    cells: list[str] = []
    for clock in ("wall", "cpu"):
        rates, first = ([_rate(one.result, clock) for one in each] for each in (found, base))
        devices = 1 if name == WEAK[0] or clock == "cpu" else 2
        ratio = race.Ratio.of([rate / devices for rate in rates], first)
        cells += [f"{statistics.median(rates):,.0f}", "1" if name == WEAK[0] else str(ratio)]
    return label, *cells


def _rate(result: Any, clock: str) -> float:
    rate: float = result["tokens"] / statistics.median(max(lap[clock], TICK) for lap in result["laps"])
    return rate


def overheads(found: dict[str, Overhead], sizes: Sizes) -> Table:
    """CPU time of a step on one device over that of another checkout."""
    rows = [
        (
            backend,
            f"{one.ratio:.4f}",
            f"{one.low:.4f} to {one.high:.4f}",
            f"{one.seconds:.2f}",
            "equal in every bit" if one.same_losses else "differ",
        )
        for backend, one in found.items()
    ]
    columns = ("", "CPU time, this code / other", "95 % interval", "CPU-s of a lap", "losses")
    note = f"Median of {sizes.pairs} pairs of laps of {sizes.steps} updates, interleaved; one thread."
    return Table("one device, against other code", columns, rows, note)


def _numbers(found: Found) -> JsonObject:
    made: JsonObject = {}
    for (function, backend, name), outcomes in found.items():
        made.setdefault(function, {})[f"{backend}, {name}"] = [asdict(one) for one in outcomes]
    return made


PARTS = {"sent": sent, "memory": memory, "laps": weak}
"""Functions of `benchmarks.steps`, and the table of each."""


def main(arguments: list[str] | None = None) -> None:
    """`python -m benchmarks.scaling`."""
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    made.add_argument("--backends", type=lambda text: text.split(","), default=None, metavar="A,B")
    made.add_argument(
        "--against", type=Path, metavar="FOLDER", help="a checkout of other code, for the cost on 1 device"
    )
    made.add_argument(
        "--parts", type=lambda text: text.split(","), default=list(PARTS), metavar="A,B", help=f"of {', '.join(PARTS)}"
    )
    made.add_argument("--quick", action="store_true", help="tiny sizes: that it runs, not how fast")
    made.add_argument("--json", type=Path, metavar="FILE", help="write every number to this file")
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to this file")
    given = made.parse_args(arguments)
    several = [name for name in installed() if BACKENDS[name].devices]
    backends, sizes = given.backends or several, QUICK if given.quick else FULL
    model_folder(MODELS, sizes.model)
    found = measure(backends, [name for name in PARTS if name in given.parts], sizes, given.quick)
    shown = [make(found) for name, make in PARTS.items() if name in given.parts]
    cost: dict[str, Overhead] = {}
    if given.against is not None:
        work = Work(model_folder(MODELS, sizes.small), sizes.rows, sizes.length, sizes.steps)
        cost = {backend: overhead(backend, work, given.against, sizes.pairs) for backend in backends}
        shown.append(overheads(cost, sizes))
    for one in shown:
        one.show()
    if given.markdown:
        write_markdown(given.markdown, "Scaling", about("CPU"), shown)
    if given.json:
        settings: JsonObject = {"sizes": asdict(sizes), "backends": backends}
        costs = {backend: asdict(one) for backend, one in cost.items()}
        race.write_json(given.json, "scaling", settings, _numbers(found) | {"overhead": costs})


if __name__ == "__main__":
    main()
