"""The MLflow run that a sweep's members are children of, and the process that looks after it.

    python -m tunix_rt.tracking.sweep SWEEP_FOLDER [--watch]

Whoever needs the parent first makes it, under a lock in the sweep's folder: this process, or a member's follower. It
is given the ranking, the figures and its end status when the sweep has ended, or its process is gone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from tunix_rt.errors import MachineError
from tunix_rt.files import JsonObject, read_json, to_json, write_json
from tunix_rt.runs.rates import shown
from tunix_rt.runs.secrets import mask
from tunix_rt.runs.sweep import SweepFolder
from tunix_rt.tracking.content import URI_VARIABLE
from tunix_rt.tracking.mlflow import LOCK_SECONDS, TABLE_TAG, MlflowRun, Status, StoreError, store_errors
from tunix_rt.tracking.process import TrainingProcess
from tunix_rt.tracking.tail import Point
from tunix_rt.tracking.uri import resolve

PARENT = "mlflow.parentRunId"
STATE, LOG, TABLE = "tracking.json", "tracking.log", "ranking_table.json"
POLL = 1.0
"""Seconds between two looks at the sweep, and between two tries of a store that is down."""
ENDS: dict[str, Status] = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


def spawn(sweep: SweepFolder, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the process that looks after the parent of a sweep that has begun; Ctrl-C does not reach it."""
    command = [sys.executable, "-m", "tunix_rt.tracking.sweep", str(sweep.path), "--watch"]
    with (sweep.path / LOG).open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment
        )


def parent_run(sweep: SweepFolder, uri: str, experiment: str) -> MlflowRun:
    """The sweep's run in the store, found by its id or its tags, else made. Raises what the store fails with."""
    from filelock import FileLock

    status, file = sweep.status(), sweep.path / STATE
    tags = {
        "mlflow.runName": f"{sweep.path.parent.name}-{sweep.path.name}"[:64],
        "mlflow.source.type": "LOCAL",
        "mlflow.user": psutil.Process().username(),
        "tunix_rt.identity": sweep.path.name,
        "tunix_rt.key": str(status["key"]),
        "tunix_rt.sweep_folder": str(sweep.path),
    }
    with FileLock(sweep.path / ".tracking.lock", timeout=LOCK_SECONDS):
        kept: JsonObject = read_json(file) if file.exists() else {}
        known = kept.get("run_id") if kept.get("store") == mask(uri) else None
        run = MlflowRun.find_or_create(uri, experiment, tags, known, round(1000 * float(status["started"])))
        if run.run_id != known:
            write_json(file, {"store": mask(uri), "run_id": run.run_id})
    return run


def status_of(sweep: SweepFolder) -> Status:
    """RUNNING, or how the sweep ended; gone without a word is KILLED."""
    for _ in range(2):  # its last word may come between the reading of the file and the look at the process
        status = sweep.status()
        if status["state"] != "running":
            return ENDS[str(status["state"])]
        if TrainingProcess.of(status).alive():
            return "RUNNING"
    return "KILLED"


def send(sweep: SweepFolder, status: Status) -> None:
    """Make the parent what the sweep's folder says. Raises what the store fails with."""
    facts = sweep.status()
    tracking, directory = facts["tracking"], Path(str(facts["directory"]))
    uri = os.environ.get(URI_VARIABLE) or str(tracking["uri"])
    run = parent_run(sweep, resolve(uri, directory), str(tracking["experiment"]))
    run.log_parameters({f"sweep.{key}": str(facts[key]) for key in ("metric", "direction", "varying")})
    if status == "RUNNING":
        run.set_status("RUNNING", None)
        return
    if sweep.ranking.exists():
        lines: list[JsonObject] = read_json(sweep.ranking)
        table = _table(lines, list(facts["varying"]), str(facts["metric"]))
        run.log_points(_points(lines, str(facts["metric"]), sweep.ranking.stat().st_mtime_ns // 1_000_000))
        run.log_file(sweep.ranking, sweep.ranking.name)
        run.log_text(to_json(table), TABLE)
        nothing: JsonObject = {"values": {}, "folder": "none"}
        leading = [line for line in lines if line["leading"]]
        best = leading[0] if len(leading) == 1 else nothing
        tags = {f"best.{key}": str(best["values"].get(key, "")) for key in facts["varying"]}
        note = {"mlflow.note.content": _markdown(table), "best.run_folder": str(best["folder"])}
        run.set_tags({TABLE_TAG: to_json([{"path": TABLE, "type": "table"}])} | tags | note)
    for figure in sweep.figures():
        run.log_file(figure, f"figures/{figure.name}")
    run.set_status(status, round(1000 * float(facts["ended"] or time.time())))


def _table(lines: Sequence[JsonObject], varying: Sequence[str], metric: str) -> JsonObject:
    """`ranking.json` as MLflow shows tables."""
    columns = ["rank", *varying, "state", metric, "low", "high", "folder", "reason"]
    data = [
        [
            *(line["rank"], *(line["values"].get(key) for key in varying)),
            *(line["state"], line["value"], *(line["interval"] or [None, None])),
            *(line["folder"], line["reason"]),
        ]
        for line in lines
    ]
    return {"columns": columns, "data": data}


def _markdown(table: JsonObject) -> str:
    rows = [table["columns"], ["---"] * len(table["columns"]), *table["data"][:20]]
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)[:5000]


def _cell(value: Any) -> str:
    return shown(value) if isinstance(value, float) else "" if value is None else str(value)


def _points(lines: Sequence[JsonObject], metric: str, time: int) -> list[Point]:
    """The first member's value, and how many members ended how."""
    states = ("finished", "pruned", "failed", "interrupted")
    counts = [Point(f"members/{s}", 0, time, float(sum(line["state"] == s for line in lines))) for s in states]
    values = [line["value"] for line in lines if line["value"] is not None]
    return [*counts, *(Point(f"first/{metric}", 0, time, float(value)) for value in values[:1])]


def follow(sweep: SweepFolder, watch: bool) -> int:
    """Send now and, with `watch`, when the sweep has ended; 3 where the store could not be reached in time."""
    facts = sweep.status()["tracking"]
    begun, deadline = False, float("inf")
    while True:
        status = status_of(sweep) if watch or sweep.status()["state"] != "running" else "KILLED"
        if status != "RUNNING":
            deadline = min(deadline, time.monotonic() + 0.5 * float(facts["wait_seconds"]))
        try:
            if status != "RUNNING" or not begun:
                with store_errors(str(facts["uri"])):
                    send(sweep, status)
                begun = True
            if status != "RUNNING":
                return 0
        except StoreError as error:
            sys.stderr.write(f"{error}\n")
            if time.monotonic() >= deadline:
                return MachineError.exit_code
        time.sleep(POLL)


def main(words: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tunix_rt.tracking.sweep", description=__doc__)
    parser.add_argument("sweep_folder", type=Path)
    parser.add_argument("--watch", action="store_true", help="go on until the sweep has ended")
    options = parser.parse_args(words)
    if options.watch:
        os.nice(10)
    return follow(SweepFolder(options.sweep_folder.resolve()), options.watch)


if __name__ == "__main__":
    sys.exit(main())
