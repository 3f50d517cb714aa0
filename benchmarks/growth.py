"""How time and memory grow: traces prepared, positions in a row, parameters of a model; with the exponent of each.

Every size is measured in a process of its own. An exponent is the slope of a straight line through the logarithms: 1 is
linear. `--quick`: toy sizes, which prove that this works and measure nothing.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import arithmetic
from benchmarks.fresh import Run
from benchmarks.isolated import Call, result_of
from benchmarks.race import THREADS
from benchmarks.report import Row, Table, about, write_markdown
from benchmarks.workload import Workload, table_parser
from tunix_rt.terminal import say

TRACES = (1_000, 10_000, 100_000)
POSITIONS = (64, 256, 1024, 4096)
MODELS = ("1 M", "10 M", "40 M", "135 M")
TOKENS = 8192
"""Of an update, whatever the length of a row."""
LIMIT = 3600.0
"""Seconds for one size."""
Sized = tuple[str, float, Run]
"""How a size is called, the size, and what is measured at it."""


def prepare(root: str, num_traces: int) -> dict[str, float]:
    """CPU time, wall time and peak memory of the stage `prepare` on made worksheets."""
    from tunix_rt.inputs import prepared_data
    from tunix_rt.tracking.registry import ModelStore

    path = Path(root) / f"{num_traces}.jsonl"
    config = Workload.of(f"dataset.source.train.path={path}", f"dataset.name=growth{num_traces}").config
    before, wall = _cpu(), time.perf_counter()
    prepared_data(config, ModelStore(config.tracking.uri))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"cpu": _cpu() - before, "wall": time.perf_counter() - wall, "peak": peak}


def _cpu() -> float:
    """CPU-seconds of this process and of those that it waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def write_traces(root: str, num_traces: int) -> None:
    """The file that `prepare` reads."""
    arithmetic.write(Path(root) / f"{num_traces}.jsonl", num_traces, seed=0)


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of the line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def of_traces(root: Path, sizes: Sequence[int]) -> Table:
    """The table of `prepare`."""
    found = []
    for size in sizes:
        say(f"growth: {size:,} traces")
        name = {"root": str(root), "num_traces": size}
        result_of(Call("benchmarks.growth:write_traces", name), LIMIT)
        found.append(result_of(Call("benchmarks.growth:prepare", name), LIMIT))
    rows = [_told(size, one) for size, one in zip(sizes, found, strict=True)]
    fitted = [exponent(sizes, [one[key] for one in found]) for key in ("cpu", "wall")]
    last: Row = ("exponent", f"{fitted[0]:.2f}", f"{fitted[1]:.2f}", "", "")
    return Table("traces prepared", ("traces", "CPU-s", "s", "traces / s", "peak MB"), [*rows, last])


def _told(size: int, found: dict[str, float]) -> Row:
    rate, peak = size / found["wall"], found["peak"] / 1e6
    return f"{size:,}", f"{found['cpu']:.2f}", f"{found['wall']:.2f}", f"{rate:,.0f}", f"{peak:,.0f}"


def of_training(root: Path, title: str, first: str, runs: dict[str, list[Sized]], laps: int) -> Table:
    """Wall time for each 1,000 tokens of an update, a column for each backend."""
    columns: dict[str, list[float]] = {}
    for backend, sizes in runs.items():
        columns[backend] = []
        for label, _, run in sizes:
            say(f"growth: {title}: {backend}, {label}")
            call = Call("benchmarks.steps:laps", {"root": str(root), "run": run.to_json(), "count": laps})
            found = result_of(call, LIMIT)
            columns[backend].append(min(lap["wall"] for lap in found["laps"]) / found["tokens"] * 1e6)
    any_runs = next(iter(runs.values()))
    rows = [
        (label, *(f"{columns[backend][place]:.2f}" for backend in runs)) for place, (label, _, _) in enumerate(any_runs)
    ]
    sizes_of = [size for _, size, _ in any_runs]
    last = ("exponent", *(f"{exponent(sizes_of, values):.2f}" for values in columns.values()))
    return Table(title, (first, *(f"{backend}, ms / 1,000 tokens" for backend in runs)), [*rows, last])


def by_positions(backends: Sequence[str], lengths: Sequence[int], tokens: int) -> dict[str, list[Sized]]:
    """Rows of one trace each, so that attention grows with them."""
    return {
        name: [
            (f"{length:,}", length, _run(name, "10 M", rows=max(1, tokens // length), length=length))
            for length in lengths
        ]
        for name in backends
    }


def by_parameters(backends: Sequence[str], models: Sequence[str]) -> dict[str, list[Sized]]:
    """Rows of 256 positions."""
    sizes = {model: float(model.removesuffix(" M")) * 1e6 for model in models}
    return {
        name: [(model, size, _run(name, model, rows=8, length=256)) for model, size in sizes.items()]
        for name in backends
    }


def _run(backend: Any, model: str, rows: int, length: int) -> Run:
    return Run(backend, "cpu", model, rows=rows, length=length, steps=1, threads=THREADS)


def main(arguments: list[str] | None = None) -> None:
    """`python -m benchmarks.growth`."""
    made = table_parser(__doc__ or "")
    made.add_argument("--traces", type=int, nargs="+", default=TRACES, help="(default: %(default)s; up to 1000000)")
    made.add_argument("--laps", type=int, default=3, help="of each size; the fastest counts (default %(default)s)")
    given = made.parse_args(arguments)
    backends = given.backends
    traces, positions, models, tokens = given.traces, POSITIONS, MODELS, TOKENS
    if given.quick:
        traces, positions, models, tokens = (40, 80), (16, 32), ("1 M", "10 M"), 64
    with tempfile.TemporaryDirectory(prefix="growth-") as place:
        root = Path(place)
        tables = [of_traces(root, traces)]
        title = f"positions in a row, of {tokens:,} tokens an update, 10 M parameters"
        tables.append(of_training(root, title, "positions", by_positions(backends, positions, tokens), given.laps))
        tables.append(of_training(root, "parameters", "parameters", by_parameters(backends, models), given.laps))
    for table in tables:
        table.show()
    if given.markdown:
        write_markdown(given.markdown, "Growth", about("CPU"), tables)


if __name__ == "__main__":
    main()
