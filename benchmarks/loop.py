"""What the training loop costs beside its steps: batches, order of the data, logs, watching, bars.

In a process of its own the command trains the quickstart; clocks are read where a log is written, and every batch is
kept. Then the same steps are made of the same batches with nothing around them. `--quick`: a few steps, which prove
that this works and measure nothing.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.isolated import Call, result_of
from benchmarks.report import Row, Table, about, write_markdown
from benchmarks.workload import table_parser
from tunix_rt.backends import registry
from tunix_rt.backends.interface import State
from tunix_rt.batches.batch import Batch
from tunix_rt.terminal import say

LOG_EVERY = 20
BARE_LAPS = 3
"""The fastest counts."""
LIMIT = 1800.0
"""Seconds for one lap."""
Clocks = tuple[float, float]
"""Wall time, CPU time of the process."""


class Noting:
    """A backend that notes what it is given and when results are there."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.state = inner, None
        self.batches: list[Batch] = []
        self.fetched: dict[int, Clocks] = {}
        """Steps made so far → clocks when the last result of them was there."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def train_step(self, state: State, batch: Batch, rate: float) -> tuple[State, Any]:
        self.batches.append(batch)
        self.state, measured = self.inner.train_step(state, batch, rate)
        return self.state, measured

    def fetch(self, measured: Any) -> Any:
        found = self.inner.fetch(measured)
        self.fetched[len(self.batches)] = clocks()
        return found


def clocks() -> Clocks:
    """Of this moment."""
    return time.perf_counter(), time.process_time()


def lap(backend: str, num_steps: int) -> dict[str, list[float]]:
    """Wall and CPU seconds of the steps after the first log: in the loop, and bare."""
    from tunix_rt.__main__ import main as command

    made: list[Noting] = []
    create = registry.create

    def noted(*given: Any) -> Any:
        made.append(Noting(create(*given)))
        return made[-1]

    registry.create = noted
    words = [f"backend={backend}", f"training.max_steps={num_steps}", "schedule.warmup_steps=0"]
    words += ["training.evaluate_every=null", f"checkpoint.log_every={LOG_EVERY}", "checkpoint.save_every=null"]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        code = command(["+experiment=quickstart", *words, "dataset.limit.test=4", "tracking=none"])
    (noting,) = [one for one in made if len(one.batches) == num_steps]
    if code != 0:
        raise RuntimeError(f"the command ended with {code}")
    begun, ended = noting.fetched[LOG_EVERY], noting.fetched[num_steps]
    bare = [_bare(noting) for _ in range(BARE_LAPS)]
    return {"loop": _between(begun, ended), "bare": [min(one) for one in zip(*bare, strict=True)]}


def _bare(noting: Noting) -> list[float]:
    begun, pending = clocks(), []
    for step, batch in enumerate(noting.batches[LOG_EVERY:], start=1):
        noting.state, measured = noting.inner.train_step(noting.state, batch, 0.0)
        pending.append(measured)
        if step % LOG_EVERY == 0:
            while pending:
                noting.inner.fetch(pending.pop(0))
    return _between(begun, clocks())


def _between(begun: Clocks, ended: Clocks) -> list[float]:
    return [after - before for before, after in zip(begun, ended, strict=True)]


def measured(backends: Sequence[str], num_steps: int, rounds: int) -> Table:
    """The table: medians of laps that take turns."""
    laps: dict[str, list[dict[str, list[float]]]] = {name: [] for name in backends}
    for number in range(rounds):
        for name in backends:
            say(f"loop: {name}, lap {number + 1} of {rounds}")
            call = Call("benchmarks.loop:lap", {"backend": name, "num_steps": num_steps})
            laps[name].append(result_of(call, LIMIT))
    columns = ("", "ms / step, bare", "loop / bare, wall clock", "loop / bare, CPU time")
    rows = [_row(name, found, num_steps - LOG_EVERY) for name, found in laps.items()]
    return Table(f"the loop over its bare steps, {num_steps} steps of the quickstart", columns, rows)


def _row(name: str, laps: Sequence[dict[str, list[float]]], num_steps: int) -> Row:
    ratios = [[lap["loop"][clock] / lap["bare"][clock] for lap in laps] for clock in (0, 1)]
    step = statistics.median(lap["bare"][0] for lap in laps) / num_steps * 1e3
    return name, f"{step:.1f}", *(f"{statistics.median(one):.3f} ({min(one):.3f} to {max(one):.3f})" for one in ratios)


def main(arguments: list[str] | None = None) -> None:
    """`python -m benchmarks.loop`."""
    made = table_parser(__doc__ or "")
    made.add_argument("--steps", type=int, default=400, help=f"a multiple of {LOG_EVERY} (default %(default)s)")
    made.add_argument("--rounds", type=int, default=5, help="laps of each backend (default %(default)s)")
    given = made.parse_args(arguments)
    steps, rounds = (2 * LOG_EVERY, 1) if given.quick else (given.steps, given.rounds)
    if steps % LOG_EVERY or steps <= LOG_EVERY:
        made.error(f"--steps {steps}: a multiple of {LOG_EVERY}, and more than it")
    found = measured(given.backends, steps, rounds)
    found.show()
    if given.markdown:
        write_markdown(given.markdown, "Loop", about("CPU"), [found])


if __name__ == "__main__":
    main()
