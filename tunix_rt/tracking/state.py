"""What has been sent of a folder (`tracking.json`), and the base class for syncing a run or a sweep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from tunix_rt.config.execution import TrackingConfig
from tunix_rt.files import JsonObject, read_json, write_json
from tunix_rt.runs.secrets import mask
from tunix_rt.tracking.store import Status, Store, store_class

STATE = "tracking.json"


@dataclass(frozen=True, slots=True)
class SyncReport:
    """How the sending of a folder ended."""

    status: Status
    run_id: str | None
    """The run's id in the store; None if the store was never reached."""
    complete: bool
    message: str
    """One line for a person."""
    session: str
    """Which start of the run the report is about: `session_of` its status."""


def session_of(status: JsonObject) -> str:
    """Identifies one start of a run or a sweep, from its `status.json` or `sweep.json`."""
    return f"{status.get('pid')} {status.get('process_started')} {status.get('started')}"


@dataclass(slots=True)
class SyncState:
    """The contents of `tracking.json`."""

    path: Path
    key: str
    """Generated with this file and sent as a tag: it finds the run even if a crash prevented saving the run's id."""
    directory: str
    """Working directory when the run was first sent; a relative SQLite file is always resolved against it."""
    kind: str = "mlflow"
    store: str = ""
    """The URI, without password."""
    run_id: str | None = None
    offsets: dict[str, int] = field(default_factory=dict)
    done: dict[str, str] = field(default_factory=dict)
    """Digest of each item that the store has, by its name."""
    trouble: str | None = None
    """The store's error message, if the last attempt failed."""
    report: JsonObject | None = None

    @classmethod
    def load(cls, folder: Path, directory: Path | None = None) -> SyncState:
        """Read the file, or start a new state; `directory` defaults to the current working directory."""
        path = folder / STATE
        recorded: Mapping[str, Any] = read_json(path) if path.exists() else {}
        if "key" not in recorded:
            return cls(path=path, key=uuid4().hex, directory=str(directory or Path.cwd()))
        return cls(path=path, **recorded)

    def save(self) -> None:
        """Write the file atomically."""
        write_json(self.path, {key: value for key, value in asdict(self).items() if key != "path"})

    def belong_to(self, kind: str, store: str, run_id: str) -> None:
        """Switch to this store and run; forget what was sent if they are others than before."""
        if (kind, store, run_id) != (self.kind, self.store, self.run_id):
            self.kind, self.store, self.run_id, self.offsets, self.done = kind, store, run_id, {}, {}
            self.save()

    def report_of(self, session: str) -> SyncReport | None:
        """How sending this start of the run ended; None while it goes on."""
        if self.report is None or self.report.get("session") != session:
            return None
        return SyncReport(**self.report)


class FolderSync(ABC):
    """Sends one folder to one store. If the store fails, call `disconnect`, and `send` again later."""

    def __init__(self, folder: Path, tracking: TrackingConfig, directory: Path | None) -> None:
        self.folder, self.tracking = folder, tracking
        self.state = SyncState.load(folder, directory)
        self.state.report = self.state.trouble = None
        self.state.save()
        kind = store_class(tracking.kind)
        self.uri = kind.resolve(tracking.uri, Path(self.state.directory))
        self._store: Store | None = None

    @abstractmethod
    def status(self) -> Status:
        """The current status; `killed` if the process is gone without having recorded an end."""

    @abstractmethod
    def session(self) -> str:
        """Which start of the run or sweep this is."""

    @abstractmethod
    def send(self, status: Status) -> None:
        """Send what is new, and the results if it has ended."""

    @abstractmethod
    def close(self, status: Status) -> SyncReport:
        """After the last `send`: set the final status, save and return the report."""

    def make_store(self) -> Store:
        """The store, not opened yet."""
        return store_class(self.tracking.kind)(self.uri, self.tracking.experiment)

    def keep(self, status: Status, complete: bool, message: str) -> SyncReport:
        """Write the report into `tracking.json`."""
        report = SyncReport(status, self.state.run_id, complete, message, self.session())
        self.state.report, self.state.trouble = asdict(report), None
        self.state.save()
        return report

    def disconnect(self, trouble: str) -> None:
        """Look up the run again at the next send: the store may have come back without it."""
        self._store, self.state.trouble = None, trouble
        self.state.save()

    def where(self, name: str, status: Status) -> str:
        """The first part of a report's message."""
        return f"{name} → {self.tracking.kind} run {self.state.run_id} ({status}) in {mask(self.uri)}"
