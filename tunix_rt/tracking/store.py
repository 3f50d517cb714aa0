"""The interface to a tracker: a `Store` of six methods, chosen by its name, `tracking.kind`.

A store is a file `tracking/stores/NAME.py`, or a class that another package names by an entry point of the group
`tunix_rt.stores`. The sync process calls the six methods; the run only `check` and `ui_command`.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, cast

from tunix_rt.config.execution import TrackingConfig
from tunix_rt.errors import ConfigError, InputError, MachineError
from tunix_rt.files import JsonObject
from tunix_rt.runs.secrets import is_masked, mask
from tunix_rt.tracking import stores
from tunix_rt.tracking.tail import Point

Status = Literal["running", "waiting", "finished", "failed", "killed"]
ENDED: tuple[Status, ...] = ("finished", "failed", "killed")
"""`waiting` is not among them: the results of a run that waits for its next stage are still to come."""
GROUP = "tunix_rt.stores"
NONE = "none"
"""The `tracking.kind` that sends nothing."""


class StoreError(MachineError):
    """The store failed just now; try again later. The message has its URI, without password, and its error."""


class StoreRefused(StoreError):
    """The store will never accept it: do not try again."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What identifies a run in a store."""

    name: str
    tags: dict[str, str]
    """The identity tags: `tunix_rt.identity` and `tunix_rt.key` together belong to one run only."""
    started: int
    """Unix milliseconds."""
    known: str | None
    """Its id in the store, if already known."""
    parent: str | None
    """The id of the sweep's run, for a member of a sweep."""
    running: bool


@dataclass(frozen=True, slots=True)
class DataSplit:
    """One split of the prepared data."""

    name: str
    context: str
    """`training`, `validation` or `testing`."""
    sha256: str
    source: str
    """Its folder."""
    profile: JsonObject
    """Counts."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is declared and recorded about a run. Values may have any length; secrets are masked."""

    parameters: dict[str, str]
    tags: dict[str, str] = field(default_factory=dict)
    """`user`, `command` and `commit` are what they say; the others are named `tunix_rt.…`, `version.…`, `best.…`."""
    datasets: list[DataSplit] = field(default_factory=list)
    note: str = ""
    """Markdown, the description of the run; empty while it goes on."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table named as a JSON file; that of the predictions also has some of them in full."""

    name: str
    columns: list[str]
    rows: list[list[Any]]
    examples: list[JsonObject] = field(default_factory=list)
    """`content.answers` of a sample, for a store that shows more than cells."""
    time: int = 0
    """When the predictions were made, Unix milliseconds."""


class Store(ABC):
    """One run in a tracker. Every method is idempotent: calling it again with the same values changes nothing.

    Raises StoreError if the tracker is out of reach (it is called again later), StoreRefused if it can never work.
    """

    title = "the store"
    """Its name in messages."""

    def __init__(self, uri: str, experiment: str) -> None:
        self.uri, self.experiment = uri, experiment

    @abstractmethod
    def open(self, entry: Entry) -> str:
        """Find the run by its id or its identity tags, or create it; returns its id. It may already have ended."""

    @abstractmethod
    def params(self, facts: Facts) -> None:
        """Store what is declared and recorded; called again when more is known."""

    @abstractmethod
    def metrics(self, points: Sequence[Point]) -> None:
        """Add values of metrics; a point with the same key, step, time and value is stored once."""

    @abstractmethod
    def artifact(self, name: str, content: Path | str) -> None:
        """Store a file, a folder or text at the path `name` among the run's artifacts."""

    @abstractmethod
    def table(self, table: Table) -> None:
        """Store a table; it replaces one of the same name."""

    @abstractmethod
    def close(self, status: Status, ended: int | None) -> None:
        """Set the run's status: ended (at Unix milliseconds `ended`), or waiting for its next stage."""

    def page(self) -> str:
        """Where a browser finds the opened run, without password; empty if it has no page."""
        return ""

    @classmethod
    def check(cls, uri: str, experiment: str) -> str | None:
        """Check the store before the first step, within two seconds and without importing the tracker.

        Returns a line if it is out of reach just now. Raises ConfigError for what can never work.
        """
        return None

    @classmethod
    def resolve(cls, uri: str, directory: Path) -> str:
        """`uri`, with a relative path in it resolved against `directory`."""
        return uri

    @classmethod
    def ui_command(cls, uri: str) -> str | None:
        """How to see the runs: a command or an address, without password."""
        return None

    def models(self, run_id: str) -> list[str]:
        """Names of the models registered from a run."""
        return []

    def remove(self, run_id: str) -> None:
        """Remove a run; a missing one is not an error."""
        raise InputError(f"{self.title} at {self.uri}: runs there are not removed from here")


def names() -> list[str]:
    """Every `tracking.kind` except `none`."""
    return sorted({*_own(), *(found.name for found in entry_points(group=GROUP))})


def _own() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(stores.__path__) if not module.name.startswith("_")}


def store_class(kind: str) -> type[Store]:
    """The store of that name. Raises ConfigError, which lists the available ones."""
    if kind in _own():
        return cast(type[Store], importlib.import_module(f"{stores.__name__}.{kind}").STORE)
    for found in entry_points(group=GROUP, name=kind):
        return cast(type[Store], found.load())
    raise ConfigError(f"tracking.kind: no store {mask(kind)!r} (there are: {', '.join([*names(), NONE])})")


def check(tracking: TrackingConfig, directory: Path | None = None) -> str | None:
    """Check before the first step whether sending can work; returns a line if it cannot just now.

    A relative URI is resolved against `directory` (default: the working directory). Raises ConfigError for what can
    never work, InputError if the URI comes from a record and its password is masked.
    """
    if tracking.kind == NONE:
        return None
    if is_masked(tracking.uri):
        raise InputError("tracking.uri: its password is masked in the record: give tracking.uri=URI, or tracking=none")
    kind = store_class(tracking.kind)
    return kind.check(kind.resolve(tracking.uri, directory or Path.cwd()), tracking.experiment)


def ui_command(tracking: TrackingConfig) -> str | None:
    """The command or address that shows the runs of a store, without password; None if there is none."""
    return None if tracking.kind == NONE else store_class(tracking.kind).ui_command(tracking.uri)
