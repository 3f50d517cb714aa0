"""Runs functions of the benchmarks in a process of their own, with a time limit: what fails there is a result here.

In: calls, each a function's name and JSON arguments. Out: what each returned (JSON), or why it did not. Several calls
may share a process, one after the other; what came before a failure counts.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunix_rt.backends import heap
from tunix_rt.files import append_line, read_appended, write_json
from tunix_rt.terminal import cut

Arguments = dict[str, Any]
HERE = Path(__file__).resolve().parents[1]
LONGEST = 300
"""Characters of a failure that are shown."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function by its name, `module:function`, and its arguments."""

    function: str
    arguments: Arguments


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call."""

    result: Any = None
    failure: str | None = None
    """Why there is no result."""
    seconds: float = 0.0
    """Wall time, that of the process's start included in the first."""


def attempt(calls: Sequence[Call], limit: float) -> list[Outcome]:
    """Make the calls in one new process, which is killed after `limit` seconds."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as place:
        asked, found, log = (Path(place) / name for name in ("asked.json", "found.jsonl", "log"))
        write_json(asked, [[call.function, call.arguments] for call in calls])
        started = time.monotonic()
        why = _ended(asked, found, log, limit)
        made = [record for _, record in read_appended(found)] if found.exists() else []
    spent = time.monotonic() - started
    outcomes = [Outcome(record["result"], record["failure"], record["seconds"]) for record in made]
    late = spent - sum(outcome.seconds for outcome in outcomes)
    first = [Outcome(failure=why or "ended without a result", seconds=late)] if len(outcomes) < len(calls) else []
    rest = [Outcome(failure="not reached") for _ in calls[len(outcomes) + 1 :]]
    return [*outcomes, *first, *rest]


def result_of(call: Call, limit: float) -> Any:
    """What one call returns, in a process of its own. Raises SystemExit, which ends the benchmark, with its failure."""
    (outcome,) = attempt([call], limit)
    if outcome.failure:
        raise SystemExit(f"{Path(sys.argv[0]).stem}: {outcome.failure}")
    return outcome.result


def _ended(asked: Path, found: Path, log: Path, limit: float) -> str | None:
    """Why the process ended before it was done; None: it was done. What it started ends with it."""
    words = [sys.executable, "-m", "benchmarks.isolated", str(asked), str(found)]
    paths = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    with log.open("wb") as file:
        streams = {"stdin": subprocess.PIPE, "stdout": file, "stderr": file}
        environment = os.environ | {"PYTHONPATH": paths}
        with subprocess.Popen(words, env=environment, **streams) as process:  # type: ignore[call-overload]
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                return f"not done within {limit:.0f} s"
            finally:
                process.kill()
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return cut(f"exit code {code}: {lines[-1] if lines else 'no word'}", LONGEST) if code else None


def main(words: Sequence[str]) -> None:
    """`python -m benchmarks.isolated ASKED FOUND`: make the calls in this process, as long as who asked lives."""
    heap.own_process()
    threading.Thread(target=_leave_with, args=(sys.stdin.fileno(),), daemon=True).start()
    asked, found = map(Path, words)
    begun = time.monotonic()
    for name, arguments in json.loads(asked.read_text("utf-8")):
        module, _, function = name.partition(":")
        result, failure = None, None
        try:
            result = getattr(importlib.import_module(module), function)(**arguments)
        except Exception as error:
            failure = cut(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", LONGEST)
        now = time.monotonic()
        append_line(found, {"result": result, "failure": failure, "seconds": now - begun})
        begun = now


def _leave_with(end: int) -> None:
    """The other end of the pipe is closed when its process ends, however it does."""
    os.read(end, 1)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
