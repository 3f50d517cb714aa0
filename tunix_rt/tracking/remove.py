"""What a store holds of a run, and how to remove it there, for the commands that remove runs."""

from __future__ import annotations

from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.secrets import is_masked
from tunix_rt.tracking.content import read_tracking
from tunix_rt.tracking.state import SyncState
from tunix_rt.tracking.store import Store, store_class


def stored(run: RunFolder) -> SyncState | None:
    """Where a run was sent, without asking the store; None if it never was."""
    state = SyncState.load(run.path)
    return None if state.run_id is None else state


def models(run: RunFolder) -> list[str]:
    """Models registered from the run: `models:/NAME/VERSION`. Asks the store; raises StoreError, DataError."""
    found = stored(run)
    return [] if found is None else _store(run, found).models(str(found.run_id))


def remove(run: RunFolder) -> SyncState | None:
    """Remove the run from its store and return where it was; its registered models stay. Raises as `models` does."""
    found = stored(run)
    if found is not None:
        _store(run, found).remove(str(found.run_id))
    return found


def _store(run: RunFolder, found: SyncState) -> Store:
    uri = read_tracking(run).uri if is_masked(found.store) else found.store
    return store_class(found.kind)(uri, "")
