"""What of the disk can go: of finished runs, of data no run refers to, and of what was killed halfway.

Nothing that a living run has, and nothing that does not look like ours: names are checked, not only places.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tunix_rt.errors import InputError
from tunix_rt.files import read_json
from tunix_rt.runs.folder import RunFolder, all_runs

IDENTITY = re.compile(r"[0-9a-f]{12}(-\d+)?")
CONVERTED = re.compile(r".+-[0-9a-f]{12}")
PART = re.compile(r"\.\d+\.part$")
"""A file that is being written, with the number of the process."""
HALVES = ("model.part",)
STALE_SECONDS = 3600.0
"""Age of a part file from which nobody is writing it any more."""


@dataclass(frozen=True, slots=True)
class Reclaimable:
    """A file or folder that can go."""

    kind: str
    path: Path
    bytes: int
    """What is free afterwards; a file that has another name too (a hard link) does not count."""


def size(path: Path) -> int:
    """Bytes that removing a file or folder gives back."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files if file.stat().st_nlink == 1)


def referring(run: RunFolder, root: Path) -> dict[str, list[str]]:
    """Names of the runs whose stages refer to this one → which stages."""
    found: dict[str, list[str]] = {}
    for other in all_runs(root):
        for stage, record in other.stages().items():
            if "folder" in record and (other.path / record["folder"]).resolve() == run.path.resolve():
                found.setdefault(other.name, []).append(stage)
    return found


def remove(run: RunFolder, root: Path, force: bool) -> int:
    """Remove a run's folder; returns the bytes that it gave back.

    Raises MachineError where a process works in it; InputError where others need it, unless `force`.
    """
    with run.locked():
        needed = referring(run, root)
        if needed and not force:
            who = "; ".join(f"{name} ({', '.join(stages)})" for name, stages in needed.items())
            raise InputError(f"{run.name}: needed by {who}; remove those first, or with --force they lose it")
        freed = size(run.path)
        (run.path / "status.json").unlink(missing_ok=True)  # first, so that half of it is not taken for a run
        shutil.rmtree(run.path)
    return freed


def reclaimable(root: Path, data: Path) -> list[Reclaimable]:
    """Everything that can go, by kind and path."""
    found = [*_checkpoints(root), *_torn_runs(root), *_unused_data(root, data), *_parts(root, data)]
    return sorted(found, key=lambda item: (item.kind, str(item.path)))


def clear(items: list[Reclaimable]) -> int:
    """Remove them; returns the bytes that this gave back."""
    for item in items:
        if item.path.is_dir():
            shutil.rmtree(item.path)
        else:
            item.path.unlink(missing_ok=True)
    return sum(item.bytes for item in items)


def _item(kind: str, path: Path) -> Reclaimable:
    return Reclaimable(kind, path, size(path))


def _checkpoints(root: Path) -> Iterator[Reclaimable]:
    """Of finished runs all; of stopped ones those that were not saved whole (the newest whole one goes on)."""
    for run in all_runs(root):
        state = run.status().get("state")
        if state == "finished" and run.checkpoints.is_dir() and (run.path / "model").is_dir():
            yield _item("checkpoints of a finished run", run.checkpoints)
        elif state not in ("running", "finished"):
            for folder in run.checkpoints.glob("step_*"):
                if not (folder / "checkpoint.json").exists():
                    yield _item("torn checkpoint", folder)


def _torn_runs(root: Path) -> Iterator[Reclaimable]:
    for folder in root.glob("*/*"):
        named = folder.is_dir() and IDENTITY.fullmatch(folder.name)
        begun = any((place / "status.json").exists() for place in (folder, folder.parent))
        if named and not begun and _old(folder):
            yield _item("torn run folder", folder)


def _unused_data(root: Path, data: Path) -> Iterator[Reclaimable]:
    """Prepared data and converted models that nothing refers to; nothing while a run has yet to say what it uses."""
    if any(run.status().get("state") == "running" and not run.data.exists() for run in all_runs(root)):
        return
    used = {Path(str(read_json(file).get("folder", ""))).resolve() for file in root.rglob("data.json")}
    models: set[Path] = set()
    for folder in data.glob("*/*"):
        if not (folder.is_dir() and IDENTITY.fullmatch(folder.name) and folder.parent.name != "models"):
            continue
        manifest = folder / "manifest.json"
        if not manifest.exists():
            if _old(folder) and _unlocked(folder):
                yield _item("torn prepared data", folder)
        elif folder.resolve() in used:
            models.add((folder / read_json(manifest)["model"]["folder"]).resolve())
        elif _unlocked(folder):
            yield _item("prepared data of no run", folder)
    for folder in (data / "models").glob("*"):
        if folder.is_dir() and CONVERTED.fullmatch(folder.name) and folder.resolve() not in models and _old(folder):
            yield _item("converted model of no run", folder)


def _unlocked(folder: Path) -> bool:
    """Whether nobody prepares it just now."""
    from filelock import FileLock, Timeout

    file = folder.parent / f".{folder.name}.lock"
    if not file.exists():
        return True
    try:
        with FileLock(file, timeout=0):
            return True
    except Timeout:
        return False


def _parts(root: Path, data: Path) -> Iterator[Reclaimable]:
    alive = [run.path.resolve() for run in all_runs(root) if run.status().get("state") == "running"]
    for place in (root, data):
        for path in place.rglob("*.part"):
            ours = PART.search(path.name) if path.is_file() else path.parent == data / "models" or path.name in HALVES
            if ours and _old(path) and not any(path.resolve().is_relative_to(folder) for folder in alive):
                yield _item("stale part file", path)


def _old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > STALE_SECONDS
