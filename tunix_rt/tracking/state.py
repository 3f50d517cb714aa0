"""What of a folder has been sent: `tracking.json`, and what the sync of a run and that of a sweep have in common."""

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
    """In the store; None where it was never reached."""
    complete: bool
    message: str
    """One line for a person."""
    session: str
    """Which start of the run it is about: `session_of` its status."""


def session_of(status: JsonObject) -> str:
    """One start of a run or a sweep, as `status.json` and `sweep.json` record it."""
    return f"{status.get('pid')} {status.get('process_started')} {status.get('started')}"


@dataclass(slots=True)
class SyncState:
    """The contents of `tracking.json`."""

    path: Path
    key: str
    """Made with this file and sent as a tag: the run is found by it although its id could not be kept any more."""
    directory: str
    """Working directory when the run was first sent: where a relative SQLite file is, ever after."""
    kind: str = "mlflow"
    store: str = ""
    """The URI, without password."""
    run_id: str | None = None
    offsets: dict[str, int] = field(default_factory=dict)
    done: dict[str, str] = field(default_factory=dict)
    """Digest of each thing that was taken, by its name."""
    trouble: str | None = None
    """What the store said, where the last try failed."""
    report: JsonObject | None = None

    @classmethod
    def load(cls, folder: Path, directory: Path | None = None) -> SyncState:
        """Read the file, or begin a new one, in the present working directory where no other is given."""
        path = folder / STATE
        recorded: Mapping[str, Any] = read_json(path) if path.exists() else {}
        if "key" not in recorded:
            return cls(path=path, key=uuid4().hex, directory=str(directory or Path.cwd()))
        return cls(path=path, **recorded)

    def save(self) -> None:
        """Write the file, whole or not at all."""
        write_json(self.path, {key: value for key, value in asdict(self).items() if key != "path"})

    def belong_to(self, kind: str, store: str, run_id: str) -> None:
        """Forget everything that was sent to another store or run."""
        if (kind, store, run_id) != (self.kind, self.store, self.run_id):
            self.kind, self.store, self.run_id, self.offsets, self.done = kind, store, run_id, {}, {}
            self.save()

    def report_of(self, session: str) -> SyncReport | None:
        """How the sending of this start of the run ended; None while it goes on."""
        if self.report is None or self.report.get("session") != session:
            return None
        return SyncReport(**self.report)


class FolderSync(ABC):
    """Sends one folder to one store. Where the store fails, call `disconnect`, and `send` again later."""

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
        """How it stands; gone without a word is `killed`."""

    @abstractmethod
    def session(self) -> str:
        """Which start of the run or sweep this is."""

    @abstractmethod
    def send(self, status: Status) -> None:
        """Send what is new; where it has ended also the results."""

    @abstractmethod
    def close(self, status: Status) -> SyncReport:
        """After the last `send`: set the final status, keep and return the report."""

    def make_store(self) -> Store:
        """The store, not open yet."""
        return store_class(self.tracking.kind)(self.uri, self.tracking.experiment)

    def keep(self, status: Status, complete: bool, message: str) -> SyncReport:
        """Write the report into `tracking.json`."""
        report = SyncReport(status, self.state.run_id, complete, message, self.session())
        self.state.report, self.state.trouble = asdict(report), None
        self.state.save()
        return report

    def disconnect(self, trouble: str) -> None:
        """Find the run anew at the next send: the store may have come back without it."""
        self._store, self.state.trouble = None, trouble
        self.state.save()

    def where(self, name: str, status: Status) -> str:
        """How a report begins."""
        return f"{name} → {self.tracking.kind} run {self.state.run_id} ({status}) in {mask(self.uri)}"
