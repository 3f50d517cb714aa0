"""A sweep's run in a store, the parent of its members' runs: found or created by whichever process needs it first.

It receives the ranking, the figures and its final status when the sweep has ended, or its process is gone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from tunix_rt.config.execution import TrackingConfig
from tunix_rt.files import JsonObject, read_json, to_json, write_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.rates import shown
from tunix_rt.runs.sweep import MEMBERSHIP, SweepFolder
from tunix_rt.tracking.state import FolderSync, status_of
from tunix_rt.tracking.store import ENDED, Entry, Facts, Status, Store, Table
from tunix_rt.tracking.tail import Point

TABLE = "ranking_table.json"
LOCK_SECONDS = 120.0
MOST_LINES = 20
LONGEST = 100
"""Most members and characters of a reason that a description shows."""
DIGITS = 4
MEMBER_STATES = ("finished", "pruned", "failed", "interrupted")


def open_sweep(sweep: SweepFolder, store: Store, running: bool = False) -> str:
    """Open `store` as the sweep's run, found by its tags or created; returns its id.

    Several processes may call this at once: only one creates the run. Raises StoreError.
    """
    from filelock import FileLock

    status = sweep.status()
    tags = {
        "user": psutil.Process().username(),
        "tunix_rt.identity": sweep.path.name,
        "tunix_rt.key": str(status["key"]),
        "tunix_rt.sweep_folder": str(sweep.path),
    }
    name, started = f"{sweep.path.parent.name}-{sweep.path.name}"[:64], round(1000 * float(status["started"]))
    with FileLock(sweep.path / ".parent.lock", timeout=LOCK_SECONDS):
        return store.open(Entry(name, tags, started, sweep.path, known=None, parent=None, running=running))


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


class SweepSync(FolderSync):
    """Sends the contents of a sweep's own folder."""

    folder: SweepFolder

    def __init__(self, sweep: SweepFolder, tracking: TrackingConfig, kind: str) -> None:
        super().__init__(sweep, tracking, kind, Path(str(sweep.status()["directory"])))

    def find(self, store: Store, known: str | None, running: bool) -> str:
        return open_sweep(self.folder, store, running)

    def run_id(self) -> str:
        """The id of the sweep's run in the store."""
        self.open(status_of(self.folder))
        assert self.state.run_id is not None
        return self.state.run_id

    def ended(self) -> float:
        return float(self.folder.status().get("ended") or time.time())

    def send(self, status: Status) -> None:
        store, sweep, ended = self.open(status), self.folder, status in ENDED
        ranking = [sweep.ranking] if ended else []
        self.send_new("facts", [sweep.path / MEMBERSHIP, *ranking], partial(self._facts, ended), store.params)
        if ended:
            self.send_new("results", ranking, self._points, store.metrics)
            self.send_new(TABLE, ranking, self._table, store.table)
            for file in [*(file for file in ranking if file.exists()), *sweep.figures()]:
                self.send_file(store, file.name if file in ranking else f"figures/{file.name}", file)

    def _facts(self, ended: bool) -> Facts:
        """What is swept; once it has `ended`, also its ranking and the one setting that leads, if one does."""
        facts = self.folder.status()
        parameters = {f"sweep.{key}": str(facts[key]) for key in ("metric", "direction", "varying")}
        if not (ended and self.folder.ranking.exists()):
            return Facts(parameters)
        lines = read_json(self.folder.ranking)
        best = _best(lines)
        tags = {f"best.{key}": ", ".join(dict.fromkeys(_varied(best, key))) for key in facts["varying"]}
        folders = ", ".join(str(line["folder"]) for line in best) or "none"
        return Facts(parameters, tags | {"best.run_folder": folders}, note=_note(lines, facts))

    def _points(self) -> list[Point]:
        """The number of members per final state, and the value of the first-ranked one."""
        lines, metric = read_json(self.folder.ranking), self.folder.status()["metric"]
        values = {f"members/{state}": sum(line["state"] == state for line in lines) for state in MEMBER_STATES}
        first = next((line["value"] for line in lines if line["value"] is not None), None)
        values |= {} if first is None else {f"first/{metric}": first}
        made = self.folder.ranking.stat().st_mtime_ns // 1_000_000
        return [Point(key, 0, made, float(value)) for key, value in values.items()]

    def _table(self) -> Table:
        """`ranking.json` as a table."""
        facts = self.folder.status()
        columns = ["rank", *facts["varying"], "state", facts["metric"], "low", "high", "folder", "reason"]
        return Table(TABLE, columns, [_row(line, facts["varying"]) for line in read_json(self.folder.ranking)])


def _best(lines: Sequence[JsonObject]) -> list[JsonObject]:
    """The members of the setting that has the first rank alone; none if several share it."""
    leading = [line for line in lines if line.get("leading")]
    return leading if len({to_json(line.get("setting", line["values"])) for line in leading}) == 1 else []


def _varied(lines: Sequence[JsonObject], key: str) -> list[str]:
    return [str(line["values"].get(key, "")) for line in lines]


def _row(line: JsonObject, varying: Sequence[str]) -> list[Any]:
    values, ends = [line["values"].get(key) for key in varying], line["interval"] or [None, None]
    numbers = [None if number is None else round(number, DIGITS) for number in (line["value"], *ends)]
    return [line.get("rank"), *values, line["state"], *numbers, line["folder"], line["reason"]]


def _note(lines: Sequence[JsonObject], facts: JsonObject) -> str:
    """The ranking for a person, in Markdown."""
    varying, tied = facts["varying"], sum(bool(line.get("leading")) for line in lines) > 1
    equal = "; = marks those that cannot be told apart from the first" if tied else ""
    rows = [["rank", *varying, facts["metric"], "95 % interval", "state", "run"]]
    rows += [["---"] * len(rows[0]), *(_cells(line, varying, tied) for line in lines[:MOST_LINES])]
    more = f"\n\n{len(lines) - MOST_LINES} more are in {TABLE}." if len(lines) > MOST_LINES else ""
    table = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
    return f"**{len(lines)} members, ranked by {facts['metric']}** ({facts['direction']}{equal})\n\n{table}{more}"[
        :5000
    ]


def _cells(line: JsonObject, varying: Sequence[str], tied: bool) -> list[str]:
    rank = "–" if line.get("rank") is None else f"{line['rank']}{'=' if tied and line.get('leading') else ''}"
    values = [str(line["values"].get(key, "")) for key in varying]
    value = "" if line["value"] is None else shown(line["value"])
    between = "" if line["interval"] is None else "[{}, {}]".format(*map(shown, line["interval"]))
    state = f"{line['state']}: {' '.join(line['reason'].split())[:LONGEST]}" if line["reason"] else line["state"]
    return [rank, *values, value, between, state, Path(line["folder"] or "").name]
