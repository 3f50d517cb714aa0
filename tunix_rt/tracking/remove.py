"""What a store holds of a run, and how to remove it there, for the commands that remove runs."""

from __future__ import annotations

from dataclasses import dataclass

from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.secrets import is_masked
from tunix_rt.tracking.content import read_tracking
from tunix_rt.tracking.state import STATE, SyncState
from tunix_rt.tracking.store import Store, store_class


@dataclass(frozen=True, slots=True)
class Stored:
    """A run in a store, as recorded in `tracking.json`, without asking the store."""

    kind: str
    uri: str
    """Without password."""
    run_id: str


def stored(run: RunFolder) -> Stored | None:
    """Where a run was sent; None if it never was."""
    state = SyncState.load(run.path) if (run.path / STATE).exists() else None
    return None if state is None or state.run_id is None else Stored(state.kind, state.store, state.run_id)


def models(run: RunFolder) -> list[str]:
    """Models registered from the run: `models:/NAME/VERSION`. Asks the store; raises StoreError, DataError."""
    found = stored(run)
    return [] if found is None else _store(run, found).models(found.run_id)


def remove(run: RunFolder) -> Stored | None:
    """Remove the run from its store and return where it was; its registered models stay. Raises as `models` does."""
    found = stored(run)
    if found is not None:
        _store(run, found).remove(found.run_id)
    return found


def _store(run: RunFolder, found: Stored) -> Store:
    uri = read_tracking(run).uri if is_masked(found.uri) else found.uri
    return store_class(found.kind)(uri, "")
