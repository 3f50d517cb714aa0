"""What can be removed from disk: leftovers of finished runs, data no run refers to, and what was killed halfway.

Nothing that a live run uses, and nothing that does not look like ours: names are checked, not only locations. What
belongs to a run or a preparation is removed only under its lock, and only if it can still be removed then.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from tunix_rt.errors import InputError, MachineError
from tunix_rt.files import read_json
from tunix_rt.runs import liveness
from tunix_rt.runs.folder import RunFolder, all_runs, folder_in
from tunix_rt.runs.origin import starts_of

IDENTITY = re.compile(r"[0-9a-f]{12}(-\d+)?")
CONVERTED = re.compile(r".+-[0-9a-f]{12}")
PART = re.compile(r"\.\d+\.part$")
"""A file that is being written, with the pid of its process."""
PART_FOLDER = re.compile(r"(model|[0-9a-f]{12}|.+-[0-9a-f]{12})\.part")
"""A folder that is being written: a trained model, prepared data, a converted model."""
STALE_SECONDS = 3600.0
"""Age from which a part file counts as abandoned."""


@dataclass(frozen=True, slots=True)
class Reclaimable:
    """A file or folder that can be removed."""

    kind: str
    path: Path
    bytes: int
    """Space that this frees; a file with further hard links does not count."""
    lock: RunFolder | Path | None
    """The run to claim, or the lock file to hold, while it is removed."""


def size(path: Path) -> int:
    """Bytes freed by removing a file or folder."""
    stats = [file.stat() for file in (path, *path.rglob("*")) if file.is_file()]
    return sum(stat.st_size for stat in stats if stat.st_nlink == 1)


def referring(run: RunFolder, root: Path) -> dict[str, list[str]]:
    """Names of the runs that need this one → for which stages, or `model` if they start from its model."""
    found: dict[str, list[str]] = {}
    for other in all_runs(root):
        if run.path.resolve() in [start.path for start in starts_of(other)]:
            found.setdefault(other.name, []).append("model")
        for stage, record in other.stages().items():
            if "folder" in record and (other.path / record["folder"]).resolve() == run.path.resolve():
                found.setdefault(other.name, []).append(stage)
    return found


def remove(run: RunFolder, root: Path, force: bool, elsewhere: Callable[[RunFolder], object] | None = None) -> int:
    """Remove a run's folder; returns the bytes freed. `elsewhere` first removes copies of it elsewhere.

    Raises MachineError if a process is working in it; InputError if other runs need it, unless `force`.
    """
    with run.locked():
        needed = referring(run, root)
        if needed and not force:
            who = "; ".join(f"{name} ({', '.join(stages)})" for name, stages in needed.items())
            raise InputError(f"{run.name}: needed by {who}; remove those first, or with --force they lose it")
        if elsewhere is not None:
            elsewhere(run)
        freed = size(run.path)
        run.status_file.unlink(missing_ok=True)  # first, so that half of it is not taken for a run
        shutil.rmtree(run.path)
    return freed


def reclaimable(root: Path, data: Path) -> list[Reclaimable]:
    """Everything that can be removed, by kind and path."""
    found = [item for item in _candidates(root, data) if _is_free(item.lock)]
    return sorted(found, key=lambda item: (item.kind, str(item.path)))


def clear(items: list[Reclaimable], root: Path, data: Path) -> list[Reclaimable]:
    """Remove what can still be removed once its lock is held; returns what was removed."""
    removed: list[Reclaimable] = []
    for item in items:
        with suppress(MachineError), _held(item.lock):  # somebody else has begun to work there: it stays
            if any(item.path == other.path for other in _candidates(root, data)):
                _remove(item.path)
                removed.append(item)
    return removed


def _remove(path: Path) -> None:
    if path.is_dir():
        (path / "manifest.json").unlink(missing_ok=True)  # first, so that half of it is not taken for prepared data
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_free(lock: RunFolder | Path | None) -> bool:
    """Whether nobody holds it at the moment; for a run, its status says so."""
    if not isinstance(lock, Path) or not lock.exists():
        return True
    with suppress(MachineError), _held(lock):
        return True
    return False


def _held(lock: RunFolder | Path | None) -> AbstractContextManager[None]:
    """A block in which the lock is held. Raises MachineError if somebody else has it."""
    if isinstance(lock, Path):
        return liveness.held(lock, lambda: f"{lock}: held by another process")
    return nullcontext() if lock is None else lock.locked()


def _candidates(root: Path, data: Path) -> Iterator[Reclaimable]:
    yield from _checkpoints(root)
    yield from _torn_runs(root)
    yield from _unused_data(root, data)
    yield from _parts(root, data)


def _item(kind: str, path: Path, lock: RunFolder | Path | None) -> Reclaimable:
    return Reclaimable(kind, path, size(path), lock)


def _checkpoints(root: Path) -> Iterator[Reclaimable]:
    """All of finished runs; of stopped ones the incomplete ones (the newest complete one is needed to resume)."""
    for run in all_runs(root):
        state, folder = run.status().get("state"), run.path / "checkpoints"
        if state == "finished" and folder.is_dir() and (run.path / "model").is_dir():
            yield _item("checkpoints of a finished run", folder, run)
        elif state not in ("running", "finished"):
            for step in folder.glob("step_*"):
                if not (step / "checkpoint.json").exists():
                    yield _item("torn checkpoint", step, run)


def _torn_runs(root: Path) -> Iterator[Reclaimable]:
    for folder in root.glob("*/*"):
        named = folder.is_dir() and IDENTITY.fullmatch(folder.name)
        begun = any((place / "status.json").exists() for place in (folder, folder.parent))
        if named and not begun and _old(folder):
            yield _item("torn run folder", folder, RunFolder(folder))


def _unused_data(root: Path, data: Path) -> Iterator[Reclaimable]:
    """Prepared data and converted models that nothing refers to; none while a run has yet to record what it uses."""
    if any(run.status().get("state") == "running" and not run.data.exists() for run in all_runs(root)):
        return
    used = {folder_in(file, root).resolve() for file in root.rglob("data.json")}
    models: set[Path] = set()
    for folder in data.glob("*/*"):
        if not (folder.is_dir() and IDENTITY.fullmatch(folder.name) and folder.parent.name != "models"):
            continue
        manifest = folder / "manifest.json"
        if not manifest.exists():
            if _old(folder):
                yield _item("torn prepared data", folder, _lock_of(folder))
        elif folder.resolve() in used:
            models.add((folder / read_json(manifest)["model"]["folder"]).resolve())
        else:
            yield _item("prepared data of no run", folder, _lock_of(folder))
    for folder in data.glob("*/*.reference"):
        of = folder.with_suffix("")
        if IDENTITY.fullmatch(of.name) and of.resolve() not in used and _old(folder):
            yield _item("reference log-probabilities of no run", folder, _lock_of(of))
    for folder in (data / "models").glob("*"):
        if folder.is_dir() and CONVERTED.fullmatch(folder.name) and folder.resolve() not in models and _old(folder):
            yield _item("converted model of no run", folder, _lock_of(folder))


def _lock_of(folder: Path) -> Path:
    """The lock of who writes prepared data or a converted model, or its part folder."""
    name = folder.name.removesuffix(".part")
    return folder.with_name(f"{name}.lock" if folder.parent.name == "models" else f".{name}.lock")


def _parts(root: Path, data: Path) -> Iterator[Reclaimable]:
    runs = all_runs(root)
    for place in (root, data):
        for path in place.rglob("*.part"):
            ours = PART_FOLDER.fullmatch(path.name) if path.is_dir() else PART.search(path.name)
            run = next((run for run in runs if path.resolve().is_relative_to(run.path.resolve())), None)
            alive = run is not None and run.status().get("state") == "running"
            if ours and _old(path) and not alive:
                beside = _lock_of(path) if run is None and path.is_dir() else run
                yield _item("stale part file", path, beside)


def _old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > STALE_SECONDS
