"""A sweep's run in a store, the parent of its members' runs: found or created by whichever process needs it first.

It receives the ranking, the figures and its final status when the sweep has ended, or its process is gone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from tunix_rt.config.execution import TrackingConfig
from tunix_rt.files import JsonObject, read_json, write_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.liveness import living
from tunix_rt.runs.rates import shown
from tunix_rt.runs.secrets import is_masked
from tunix_rt.runs.sweep import SweepFolder, sweep_of
from tunix_rt.tracking.content import URI_VARIABLE
from tunix_rt.tracking.state import FolderSync, SyncReport, session_of
from tunix_rt.tracking.store import ENDED, Entry, Facts, Status, Store, Table
from tunix_rt.tracking.tail import Point

TABLE = "ranking_table.json"
LOCK_SECONDS = 120.0
ENDS: dict[str, Status] = {"finished": "finished", "failed": "failed", "interrupted": "killed"}
MEMBER_STATES = ("finished", "pruned", "failed", "interrupted")


def parent_id(sweep: SweepFolder, store: Store, running: bool = False) -> str:
    """Open `store` as the sweep's run, found by its tags or created; returns its id.

    Several processes may call this at once: only one creates the run. Raises StoreError.
    """
    from filelock import FileLock

    status = sweep.status()
    with FileLock(sweep.path / ".parent.lock", timeout=LOCK_SECONDS):
        return store.open(
            Entry(
                name=f"{sweep.path.parent.name}-{sweep.path.name}"[:64],
                tags={
                    "user": psutil.Process().username(),
                    "tunix_rt.identity": sweep.path.name,
                    "tunix_rt.key": str(status["key"]),
                    "tunix_rt.sweep_folder": str(sweep.path),
                },
                started=round(1000 * float(status["started"])),
                known=None,
                parent=None,
                running=running,
            )
        )


def sweep_at(folder: Path) -> SweepFolder | None:
    """The sweep in this folder; None for a run's folder. (A member of a sweep has a file `sweep.json` too.)"""
    sweep = SweepFolder(folder)
    return sweep if "state" in sweep.status() else None


def sweep_above(folder: Path) -> SweepFolder | None:
    """The sweep that the run in this folder is a member of; None for other runs, and for a sweep's folder."""
    return None if sweep_at(folder) is not None else sweep_of(RunFolder(folder))


def ask_for(sweep: SweepFolder, run_folder: Path) -> Path:
    """Write a request into the sweep's folder, for its sync process to send a member; returns the file."""
    file = sweep.path / "sync" / f"{run_folder.name}.json"
    write_json(file, {"folder": os.path.relpath(run_folder.resolve(), sweep.path)})
    return file


def asked_for(sweep: SweepFolder) -> Iterator[tuple[RunFolder, int]]:
    """The members that the sweep's sync process is to send, and when each was last requested (nanoseconds)."""
    for file in sorted((sweep.path / "sync").glob("*.json")):
        asked, run = file.stat().st_mtime_ns, RunFolder((sweep.path / str(read_json(file)["folder"])).resolve())
        if run.status():  # otherwise it has been removed since
            yield run, asked


def tracking_of(sweep: SweepFolder) -> TrackingConfig:
    """The section `tracking` of a sweep; a masked URI comes from the variable `URI_VARIABLE`."""
    tracking = TrackingConfig(**sweep.status()["tracking"])
    if is_masked(tracking.uri) and URI_VARIABLE in os.environ:
        return replace(tracking, uri=os.environ[URI_VARIABLE])
    return tracking


class SweepSync(FolderSync):
    """Sends the contents of a sweep's own folder."""

    def __init__(self, sweep: SweepFolder) -> None:
        super().__init__(sweep.path, tracking_of(sweep), Path(str(sweep.status()["directory"])))
        self._sweep = sweep
        self.unsent: dict[Path, str] = {}
        """Members that could not be sent, and why."""

    def status(self) -> Status:
        """`running`, or how the sweep ended; `killed` if its process is gone without having recorded an end."""
        for _ in range(2):  # it may record its end between the read of the file and the check of its process
            status = self._sweep.status()
            if status["state"] != "running":
                return ENDS[str(status["state"])]
            if living(status) is not None:
                return "running"
        return "killed"

    def session(self) -> str:
        """Which start of the sweep this is."""
        return session_of(self._sweep.status())

    def run_id(self) -> str:
        """The id of the sweep's run in the store."""
        self._open(self.status())
        assert self.state.run_id is not None
        return self.state.run_id

    def send(self, status: Status) -> None:
        """Send the run itself and, once the sweep has ended, its ranking and figures."""
        store = self._open(status)
        if status in ENDED:
            self._send_results(store)

    def close(self, status: Status) -> SyncReport:
        """After the last `send`: set the final status, save and return the report."""
        ended = float(self._sweep.status().get("ended") or time.time())
        self._open(status).close(status, round(1000 * ended))
        wrong = f"INCOMPLETE: {len(self.unsent)} members: {'; '.join(self.unsent.values())}"
        end = wrong if self.unsent else "all sent"
        return self.keep(status, not self.unsent, f"{self.where(self._sweep.name, status)}: {end}")

    def _open(self, status: Status) -> Store:
        if self._store is None:
            store = self.make_store()
            self.state.run_id = parent_id(self._sweep, store, status == "running")
            self.state.save()
            store.params(self._facts({}, ""))
            self._store = store
        return self._store

    def _facts(self, tags: dict[str, str], note: str) -> Facts:
        facts = self._sweep.status()
        return Facts({f"sweep.{key}": str(facts[key]) for key in ("metric", "direction", "varying")}, tags, [], note)

    def _send_results(self, store: Store) -> None:
        facts, sweep = self._sweep.status(), self._sweep
        if sweep.ranking.exists():
            lines: list[JsonObject] = read_json(sweep.ranking)
            table = _table(lines, list(facts["varying"]), str(facts["metric"]))
            store.metrics(_points(lines, str(facts["metric"]), sweep.ranking.stat().st_mtime_ns // 1_000_000))
            store.artifact(sweep.ranking.name, sweep.ranking)
            store.table(table)
            nothing: JsonObject = {"values": {}, "folder": "none"}
            leading = [line for line in lines if line.get("leading")]
            best = leading[0] if len(leading) == 1 else nothing
            tags = {f"best.{key}": str(best["values"].get(key, "")) for key in facts["varying"]}
            store.params(self._facts(tags | {"best.run_folder": str(best["folder"])}, _markdown(table)))
        for figure in sweep.figures():
            store.artifact(f"figures/{figure.name}", figure)


def _table(lines: Sequence[JsonObject], varying: Sequence[str], metric: str) -> Table:
    """`ranking.json` as a table."""
    columns = ["rank", *varying, "state", metric, "low", "high", "folder", "reason"]
    data = [
        [
            *(line.get("rank"), *(line["values"].get(key) for key in varying)),
            *(line["state"], line["value"], *(line["interval"] or [None, None]), line["folder"], line["reason"]),
        ]
        for line in lines
    ]
    return Table(TABLE, columns, data)


def _markdown(table: Table) -> str:
    rows = [table.columns, ["---"] * len(table.columns), *table.rows[:20]]
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)[:5000]


def _cell(value: Any) -> str:
    return shown(value) if isinstance(value, float) else "" if value is None else str(value)


def _points(lines: Sequence[JsonObject], metric: str, time: int) -> list[Point]:
    """The value of the first-ranked member, and the number of members per final state."""
    counts = [Point(f"members/{s}", 0, time, float(sum(line["state"] == s for line in lines))) for s in MEMBER_STATES]
    values = [line["value"] for line in lines if line["value"] is not None]
    return [*counts, *(Point(f"first/{metric}", 0, time, float(value)) for value in values[:1])]
