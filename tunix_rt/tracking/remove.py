"""What stores hold of a run, and how to remove it there, for the commands that remove runs."""

from __future__ import annotations

from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.secrets import is_masked
from tunix_rt.tracking.content import read_tracking
from tunix_rt.tracking.state import SyncState
from tunix_rt.tracking.store import Store, target


def stored(run: RunFolder) -> list[SyncState]:
    """Where a run was sent, without asking the stores."""
    return SyncState.all_of(run.path)


def models(run: RunFolder) -> list[str]:
    """Models registered from the run: `models:/NAME/VERSION`. Asks the stores; raises StoreError, DataError."""
    return [model for found in stored(run) for model in _store(run, found).models(str(found.run_id))]


def remove(run: RunFolder) -> list[SyncState]:
    """Remove the run from its stores and return where it was; its registered models stay. Raises as `models` does."""
    for found in stored(run):
        _store(run, found).remove(str(found.run_id))
    return stored(run)


def _store(run: RunFolder, found: SyncState) -> Store:
    tracking = read_tracking(run, None if is_masked(found.store) else found.store)
    return target(tracking, found.kind).made(tracking.uri, tracking.experiment)
