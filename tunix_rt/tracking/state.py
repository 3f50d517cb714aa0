"""What a store has of a run or a sweep (`tracking.json`), and the base class of what sends them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from tunix_rt.checked import hashes
from tunix_rt.config.execution import TrackingConfig
from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject, digest, read_record, sha256_file, write_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.liveness import is_alive
from tunix_rt.runs.secrets import mask
from tunix_rt.runs.sweep import MEMBERSHIP, SweepFolder
from tunix_rt.tracking.store import Facts, Status, Store, Table, usable

STATE, FIRST = "tracking.json", "mlflow"
"""The file of the store that was the only one once; that of another is `tracking.NAME.json`."""
Folder = RunFolder | SweepFolder


def folder_at(path: Path) -> Folder:
    """The sweep or run whose folder this is. (A member of a sweep has a file `sweep.json` too, without a state.)"""
    sweep = SweepFolder(path)
    return sweep if "state" in sweep.status() else RunFolder(path)


def status_of(folder: Folder) -> Status:
    """The recorded status; `killed` if interrupted, or if the process is gone without having recorded an end."""
    for _ in range(2):  # it may record its end between the read of the file and the check of its process
        record = folder.status()
        state: str = record["state"]
        if isinstance(folder, SweepFolder) and state == "running" and not is_alive(record, folder.path / MEMBERSHIP):
            state = "killed"
        if state != "killed":
            break
    return "killed" if state == "interrupted" else cast(Status, state)


def session_of(folder: Folder) -> str:
    """Identifies one start of a run or a sweep."""
    status = folder.status()
    return f"{status.get('pid')} {status.get('process_started')} {status.get('started')}"


def state_file(folder: Path, kind: str) -> Path:
    """The file that says what the store `kind` has of a run or a sweep."""
    return folder / (STATE if kind == FIRST else f"tracking.{kind}.json")


@dataclass(frozen=True, slots=True)
class SyncReport:
    """How the sending of a folder ended."""

    status: Status
    run_id: str | None
    """The run's id in the store; None if the store was never reached."""
    complete: bool
    message: str
    """One line for a person."""
    session: str = ""
    """Which start of the run the report is about (`session_of`)."""


@dataclass(slots=True)
class SyncState:
    """The contents of `tracking.json`."""

    path: Path
    key: str
    """Generated with this file and sent as a tag: it finds the run even if a crash prevented saving the run's id."""
    directory: str
    """Working directory when the run was first sent; a relative SQLite file is always resolved against it."""
    kind: str = FIRST
    store: str = ""
    """The URI, without password."""
    run_id: str | None = None
    page: str = ""
    """Where a browser finds it."""
    offsets: dict[str, int] = field(default_factory=dict)
    done: dict[str, str] = field(default_factory=dict)
    """Digest of each item that the store has, by its name."""
    trouble: str | None = None
    """The store's error message, if the last attempt failed."""
    report: JsonObject | None = None

    @classmethod
    def load(cls, folder: Path, kind: str = FIRST, directory: Path | None = None) -> SyncState:
        """Read the file, or start a new state; `directory` defaults to the current working directory."""
        file = state_file(folder, kind)
        recorded = read_record(file)
        if "key" in recorded:
            return cls(file, **recorded)
        return cls(file, key=uuid4().hex, directory=str(directory or Path.cwd()), kind=kind)

    @classmethod
    def all_of(cls, folder: Path) -> list[SyncState]:
        """What each store has that was ever sent something of it."""
        records = [read_record(file) | {"path": file} for file in sorted(folder.glob("tracking*.json"))]
        return [cls(**record) for record in records if record.get("run_id") is not None]

    def save(self) -> None:
        """Write the file atomically."""
        write_json(self.path, {key: value for key, value in asdict(self).items() if key != "path"})


def sent_as(folder: Path, kind: str = FIRST) -> tuple[str, str]:
    """The id and the page of a run in a store; empty if it was not sent there."""
    state = read_record(state_file(folder, kind))
    return str(state.get("run_id") or ""), str(state.get("page") or "")


def report_on(folder: Folder, kinds: Iterable[str]) -> SyncReport | None:
    """How sending this start of a run or sweep to these stores ended; None while one of them is still sent to."""
    records = [SyncState.load(folder.path, kind).report for kind in kinds]
    session = session_of(folder)
    found = [SyncReport(**record) for record in records if record is not None and record.get("session") == session]
    return together(found) if len(found) == len(records) else None


def together(reports: Sequence[SyncReport]) -> SyncReport:
    """The reports on one folder, of each store that it was sent to, as one."""
    if len(reports) == 1:
        return reports[0]
    worst, message = all(report.complete for report in reports), "; ".join(report.message for report in reports)
    return replace(reports[0], complete=worst, message=message)


class FolderSync(ABC):
    """Sends one folder to one store. If the store fails, call `disconnect`, and `send` again later.

    `tracking.json` records after each success what the store has (byte offsets, digests): after a killed sync process
    or a lost store at most one item is sent twice, which is harmless.
    """

    folder: Folder

    def __init__(self, folder: Folder, tracking: TrackingConfig, kind: str, directory: Path | None) -> None:
        self.folder, self.tracking, self.session = folder, tracking, session_of(folder)
        self.state = SyncState.load(folder.path, kind, directory)
        self.state.report = self.state.trouble = None
        self.state.save()
        self.target = usable(tracking, kind)
        self.uri = self.target.store.resolve(self.target.uri, Path(self.state.directory))
        self.problems: dict[str, str] = {}
        """What could not be sent, and why."""
        self._store: Store | None = None
        self._seen: dict[str, list[tuple[int, int]]] = {}

    @abstractmethod
    def find(self, store: Store, known: str | None, running: bool) -> str:
        """Open the store as this folder's run (`known`: its id there); returns its id."""

    @abstractmethod
    def send(self, status: Status) -> None:
        """Send what is new, and the results if it has ended."""

    @abstractmethod
    def ended(self) -> float:
        """When a run or sweep that no longer goes on ended, Unix seconds."""

    def close(self, status: Status) -> SyncReport:
        """After the last `send`: set the final status, save and return the report."""
        if status != "running":
            self.open(status).close(status, round(1000 * self.ended()))
        end = f"INCOMPLETE: {'; '.join(dict.fromkeys(self.problems.values()))}" if self.problems else "all sent"
        where = f"{self.folder.name} → {self.target.kind} run {self.state.run_id} ({status}) in {mask(self.uri)}"
        return self.keep(status, not self.problems, f"{where}: {end}")

    def look(self) -> Status:
        """The folder's status; what is reported from now on is about the start that has it."""
        self.session = session_of(self.folder)
        return status_of(self.folder)

    def keep(self, status: Status, complete: bool, message: str) -> SyncReport:
        """Write the report into the file of the store."""
        report = SyncReport(status, self.state.run_id, complete, message, self.session)
        self.state.report, self.state.trouble = asdict(report), None
        self.state.page = self.state.page if self._store is None else self._store.page()
        self.state.save()
        return report

    def disconnect(self, trouble: str) -> None:
        """Look up the run again at the next send, and check every file again: the store may have lost them."""
        self._store, self._seen, self.state.trouble = None, {}, trouble
        self.state.save()

    def make_store(self) -> Store:
        """The store, not opened yet."""
        return self.target.made(self.uri, self.tracking.experiment)

    def open(self, status: Status) -> Store:
        """The store, opened as this folder's run. What was sent to another store or run is forgotten."""
        if self._store is not None:
            return self._store
        store, state, place = self.make_store(), self.state, (self.target.kind, mask(self.uri))
        known = state.run_id if place == (state.kind, state.store) else None
        run_id = self.find(store, known, status == "running")
        if run_id != known:
            (state.kind, state.store), state.run_id = place, run_id
        if run_id != known or store.reads_back:
            state.offsets, state.done = {}, {}
        if (run_id, store.page()) != (known, state.page):
            state.page = store.page()
            state.save()
        self._store = store
        return store

    def send_new(self, name: str, files: Sequence[Path], read: Callable[[], Any], put: Callable[[Any], None]) -> None:
        """`put` what `read` returns, if one of the files changed and the store does not have it under that name.

        A damaged file is reported and does not stop the rest.
        """
        stats = [file.stat() for file in files if file.exists()]
        now = [(stat.st_mtime_ns, stat.st_size) for stat in stats]
        if not stats or self._seen.get(name) == now:
            return
        self.problems.pop(name, None)
        try:
            content = read()
            found = digest(asdict(content) if isinstance(content, Facts | Table) else content)
            if content and self.state.done.get(name) != found:
                put(content)
                self.state.done[name] = found
                self.state.save()
        except DataError as error:
            self.problems[name] = str(error)
        self._seen[name] = now

    def send_file(self, store: Store, name: str, path: Path) -> None:
        """Send a file or folder as the artifact `name`, unless the store has it."""
        read = partial(hashes if path.is_dir() else sha256_file, path)
        self.send_new(name, [path], read, lambda _: store.artifact(name, path))
