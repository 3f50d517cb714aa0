"""The interface to a tracker: a `Store` of six methods, chosen by its name, a key of `tracking.stores`.

A store is a file `tracking/stores/NAME.py`, or a class that another package names by an entry point of the group
`tunix_rt.stores`. The sync process calls the six methods; the run only `check` and `ui_command`.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from pydantic import TypeAdapter, ValidationError

from tunix_rt.config.execution import TrackingConfig
from tunix_rt.config.section import hints_of, section
from tunix_rt.errors import ConfigError, InputError, MachineError, MissingExtra
from tunix_rt.files import JsonObject
from tunix_rt.hints import install
from tunix_rt.runs.secrets import is_masked, mask
from tunix_rt.tracking import stores
from tunix_rt.tracking.tail import Point

Status = Literal["running", "waiting", "finished", "failed", "killed"]
ENDED: tuple[Status, ...] = ("finished", "failed", "killed")
"""`waiting` is not among them: the results of a run that waits for its next stage are still to come."""
GROUP = "tunix_rt.stores"
IN_RUN = "the run's folder"
"""The address of what a store keeps with the run itself."""


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
    folder: Path
    """That of the run or sweep."""
    known: str | None
    """Its id in the store, if already known."""
    parent: str | None
    """The id of the sweep's run, for a member of a sweep."""
    running: bool


@section
class NoSettings:
    """The settings of a store that needs none beyond `tracking.uri` and `tracking.experiment`."""


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
    settings_type: ClassVar[type] = NoSettings
    """The section that `tracking.stores.NAME` is checked against."""
    package: ClassVar[str | None] = None
    """The Python package that it needs, if that is an extra of the same name."""
    reads_back = False
    """Whether `open` reads what the run has there, so that everything may be sent again and only the rest is added."""

    def __init__(self, uri: str, experiment: str, settings: Any = None) -> None:
        self.uri, self.experiment, self.settings = uri, experiment, settings

    @classmethod
    def address(cls, uri: str, settings: Any) -> str:
        """Where it keeps runs, as declared by `tracking.uri` and its own settings."""
        return uri

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
    def ui_command(cls, uri: str, folder: Path) -> str | None:
        """How to see the run of a folder, and others: a command or an address, without password."""
        return None

    def models(self, run_id: str) -> list[str]:
        """Names of the models registered from a run."""
        return []

    def remove(self, run_id: str) -> None:
        """Remove a run; a missing one is not an error."""
        raise InputError(f"{self.title} at {self.uri}: runs there are not removed from here")


@dataclass(frozen=True, slots=True)
class Target:
    """A store that a run is sent to."""

    kind: str
    """Its name."""
    store: type[Store]
    settings: Any
    """Its section, checked."""
    uri: str
    """Its address as declared; a relative path in it is not resolved yet."""

    def made(self, uri: str, experiment: str) -> Store:
        """The store at the resolved address `uri`, not opened yet."""
        return self.store(uri, experiment, self.settings)


def names() -> list[str]:
    """Every store that is installed."""
    return sorted({*_own(), *(found.name for found in entry_points(group=GROUP))})


def _own() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(stores.__path__) if not module.name.startswith("_")}


def store_class(kind: str) -> type[Store]:
    """The store of that name. Raises ConfigError, which lists the available ones."""
    if kind in _own():
        return cast(type[Store], importlib.import_module(f"{stores.__name__}.{kind}").STORE)
    for found in entry_points(group=GROUP, name=kind):
        return cast(type[Store], found.load())
    raise ConfigError(f"tracking.stores: no store {mask(kind)!r} (there are: {', '.join(names())})")


def target(tracking: TrackingConfig, kind: str) -> Target:
    """The store `kind` as declared. Raises ConfigError for a wrong setting."""
    store = store_class(kind)
    try:
        declared = json.dumps(tracking.stores.get(kind, {}))
        settings: Any = TypeAdapter(store.settings_type).validate_json(declared, strict=True)
    except ValidationError as error:
        allowed = ", ".join(hints_of(store.settings_type)) or "none"
        wrong = (f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors(include_url=False))
        raise ConfigError(f"tracking.stores.{kind}.{'; '.join(wrong)} (its settings: {allowed})") from None
    return Target(kind, store, settings, store.address(tracking.uri, settings))


def usable(tracking: TrackingConfig, kind: str) -> Target:
    """The same, if its package is installed. Raises MissingExtra."""
    found = target(tracking, kind)
    if (package := found.store.package) is not None and find_spec(package) is None:
        raise MissingExtra(f"tracking={kind} needs the package {package}: {install(package)}")
    return found


def check(tracking: TrackingConfig, directory: Path | None = None) -> list[str]:
    """Check before the first step whether sending can work; returns a line for each store where it cannot just now.

    A relative URI is resolved against `directory` (default: the working directory). Raises ConfigError for what can
    never work, MissingExtra, InputError if the URI comes from a record and its password is masked.
    """
    found = [usable(tracking, kind) for kind in tracking.stores]
    if any(is_masked(one.uri) for one in found):
        raise InputError("tracking.uri: its password is masked in the record: give tracking.uri=URI, or tracking=none")
    here = directory or Path.cwd()
    return [line for one in found if (line := one.store.check(one.store.resolve(one.uri, here), tracking.experiment))]


def ui_command(tracking: TrackingConfig, folder: Path) -> str | None:
    """The commands or addresses, one a line, that show the run of a folder, without password; None: there is none."""
    found = [target(tracking, kind) for kind in tracking.stores]
    return "\n".join(line for one in found if (line := one.store.ui_command(one.uri, folder))) or None
