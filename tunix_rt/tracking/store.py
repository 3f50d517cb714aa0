"""What a tracker is to this program: a `Store` of six methods, chosen by its name, `tracking.kind`.

A store is a file `tracking/stores/NAME.py`, or a class that another package names by an entry point of the group
`tunix_rt.stores`. The sync process (`sync.py`) calls the six methods; the run asks the class two questions before its
first step and after its last (`check`, `ui_command`) and imports nothing heavy for them.
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
"""Not `waiting`: the results of a run that waits for its next stage are still to come."""
GROUP = "tunix_rt.stores"
NONE = "none"
"""The `tracking.kind` that sends nothing."""


class StoreError(MachineError):
    """The store did not take something just now. The message names its URI, without password, and what it said."""


class StoreRefused(StoreError):
    """The store will never take it: trying again is useless."""


@dataclass(frozen=True, slots=True)
class Entry:
    """By what a store knows a run."""

    name: str
    tags: dict[str, str]
    """The identity tags: `tunix_rt.identity` and `tunix_rt.key` together belong to one run only."""
    started: int
    """Unix milliseconds."""
    known: str | None
    """Its id in the store, where it is known already."""
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
    """Where it is."""
    profile: JsonObject
    """Counts."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is declared and recorded of a run. Values are of any length; secrets are masked."""

    parameters: dict[str, str]
    tags: dict[str, str] = field(default_factory=dict)
    """`user`, `command` and `commit` are what they say; the others are named `tunix_rt.…`, `version.…`, `best.…`."""
    datasets: list[DataSplit] = field(default_factory=list)
    note: str = ""
    """Markdown, the description of the run; empty while it goes on."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table; that of the predictions brings some of them whole, for a store that shows more than cells."""

    name: str
    """Of a JSON file."""
    columns: list[str]
    rows: list[list[Any]]
    examples: list[JsonObject] = field(default_factory=list)
    """`content.answers` of a sample."""
    time: int = 0
    """When they were made, Unix milliseconds."""


class Store(ABC):
    """One run in a tracker. Each method may be called again with the same values, and changes nothing then.

    A method raises StoreError where the tracker is out of reach (it is called again later), StoreRefused where it
    never will work.
    """

    title = "the store"
    """How messages call it."""

    def __init__(self, uri: str, experiment: str) -> None:
        self.uri, self.experiment = uri, experiment

    @abstractmethod
    def open(self, entry: Entry) -> str:
        """Find the run by its id or its identity tags, or create it; returns its id. It may have ended before."""

    @abstractmethod
    def params(self, facts: Facts) -> None:
        """Put what is declared and recorded; called again when more is known."""

    @abstractmethod
    def metrics(self, points: Sequence[Point]) -> None:
        """Add values of metrics: the same key, step, time and value are stored once."""

    @abstractmethod
    def artifact(self, name: str, content: Path | str) -> None:
        """Put a file, a folder or text at the path `name` among the run's artifacts."""

    @abstractmethod
    def table(self, table: Table) -> None:
        """Put a table in place of the one of this name."""

    @abstractmethod
    def close(self, status: Status, ended: int | None) -> None:
        """Say how the run stands: ended (at Unix milliseconds `ended`), or waiting for its next stage."""

    @classmethod
    def check(cls, uri: str, experiment: str) -> str | None:
        """Look before the first step, for two seconds at most, without importing the tracker.

        Returns a line where it is out of reach just now. Raises ConfigError for what can never work.
        """
        return None

    @classmethod
    def resolve(cls, uri: str, directory: Path) -> str:
        """`uri` with a relative path in it taken from `directory`."""
        return uri

    @classmethod
    def ui_command(cls, uri: str) -> str | None:
        """What shows the runs: a command or an address, without password."""
        return None

    def models(self, run_id: str) -> list[str]:
        """Names of the registered models that were made from a run."""
        return []

    def remove(self, run_id: str) -> None:
        """Remove a run; one that is not there is no error."""
        raise InputError(f"{self.title} at {self.uri}: runs there are not removed from here")


def names() -> list[str]:
    """Every `tracking.kind` but none."""
    return sorted({*_own(), *(found.name for found in entry_points(group=GROUP))})


def _own() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(stores.__path__) if not module.name.startswith("_")}


def store_class(kind: str) -> type[Store]:
    """The store of that name. Raises ConfigError naming those there are."""
    if kind in _own():
        return cast(type[Store], importlib.import_module(f"{stores.__name__}.{kind}").STORE)
    for found in entry_points(group=GROUP, name=kind):
        return cast(type[Store], found.load())
    raise ConfigError(f"tracking.kind: no store {mask(kind)!r} (there are: {', '.join([*names(), NONE])})")


def check(tracking: TrackingConfig, directory: Path | None = None) -> str | None:
    """Look before the first step whether sending can work; returns a line where it cannot just now.

    A relative URI is taken from `directory` (default: the working directory). Raises ConfigError for what can never
    work, InputError where the URI comes from a record and its password is masked.
    """
    if tracking.kind == NONE:
        return None
    if is_masked(tracking.uri):
        raise InputError("tracking.uri: its password is masked in the record: give tracking.uri=URI, or tracking=none")
    kind = store_class(tracking.kind)
    return kind.check(kind.resolve(tracking.uri, directory or Path.cwd()), tracking.experiment)


def ui_command(tracking: TrackingConfig) -> str | None:
    """What shows the runs of a store, without password; None where there is nothing to type."""
    return None if tracking.kind == NONE else store_class(tracking.kind).ui_command(tracking.uri)
