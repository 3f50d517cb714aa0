"""From the command to the first finished training step of the quickstart, as a user waits for it.

Each round runs the command three times in an empty folder: `first` finds nothing, `cold` finds prepared data but
no compiled programs, `warm` finds both. What a second run gains from the compilation cache is cold / warm. Once
its first step is logged the run is asked to stop. Wall time depends on what else the machine does; CPU-seconds,
of the command and the processes it started, hardly do.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks.race import Ratio, write_json
from benchmarks.workload import parser
from tunix_rt.files import read_jsonl
from tunix_rt.terminal import say, table

STATES = ("first", "cold", "warm")
LIMIT_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Start:
    """One start of the command."""

    wall_seconds: float
    cpu_seconds: float


def measure(folder: Path, backend: str, overrides: Sequence[str]) -> Start:
    """Start the quickstart in `folder` and stop it after its first step. Raises RuntimeError if it does none."""
    command = [sys.executable, "-m", "tunix_rt", "+experiment=quickstart", f"backend={backend}"]
    command += ["run.new=true", "checkpoint.log_every=1", *overrides]
    before = set(folder.glob("runs/*/*/metrics.jsonl"))
    root = Path(__file__).resolve().parents[1]
    places = {"XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(root)}
    with (folder / "log").open("w") as log:
        began = time.time()
        process = subprocess.Popen(command, cwd=folder, env=os.environ | places, stdout=log, stderr=log)
        try:
            while not (made := set(folder.glob("runs/*/*/metrics.jsonl")) - before):
                if process.poll() is not None or time.time() - began > LIMIT_SECONDS:
                    raise RuntimeError(f"no training step: {' '.join(command)}\n{(folder / 'log').read_text()[-2000:]}")
                time.sleep(0.01)
            used = _cpu_seconds(process.pid)
            process.send_signal(signal.SIGTERM)
            process.wait(LIMIT_SECONDS)
        finally:
            process.kill()
    (metrics,) = made
    _, line = next(read_jsonl(metrics.with_name("timings.jsonl")))
    return Start(float(line["time"]) - began, used)


def _cpu_seconds(pid: int) -> float:
    """CPU time of a process and all its children, those that have ended included."""
    process = psutil.Process(pid)
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def starts(backend: str, overrides: Sequence[str]) -> dict[str, Start]:
    """One start in each state, in a temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        folder, found = Path(name), {}
        for state in STATES:
            if state == "cold":
                shutil.rmtree(folder / "cache", ignore_errors=True)
            found[state] = measure(folder, backend, overrides)
            say(f"{backend}, {state}: {found[state].wall_seconds:.1f} s, {found[state].cpu_seconds:.1f} CPU-s")
    return found


def main(arguments: list[str] | None = None) -> None:
    """`python -m benchmarks.startup`."""
    given = parser(__doc__ or "", rounds=2).parse_args(arguments)
    rounds = [{backend: starts(backend, given.overrides) for backend in given.backends} for _ in range(given.rounds)]
    rows, numbers = [], {}
    for backend in given.backends:
        taken = {state: [found[backend][state] for found in rounds] for state in STATES}
        gain = Ratio.of([s.cpu_seconds for s in taken["cold"]], [s.cpu_seconds for s in taken["warm"]])
        rows += [(backend, *_seconds(state, taken[state]), str(gain) if state == "warm" else "") for state in STATES]
        numbers[backend] = {
            "starts": {state: [asdict(start) for start in taken[state]] for state in STATES},
            "cold_over_warm": asdict(gain),
        }
    columns = ("", "caches", "s", "CPU-s", "cold / warm (CPU-s)")
    table("from the command to the first training step of the quickstart", columns, rows, right=(2, 3, 4))
    if given.json:
        write_json(given.json, "startup", {"overrides": given.overrides, "rounds": given.rounds}, {"backends": numbers})


def _seconds(state: str, starts: Sequence[Start]) -> tuple[str, str, str]:
    wall, cpu = (
        statistics.median(values) for values in zip(*[(s.wall_seconds, s.cpu_seconds) for s in starts], strict=True)
    )
    return state, f"{wall:.1f}", f"{cpu:.1f}"


if __name__ == "__main__":
    main()
