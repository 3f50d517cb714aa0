"""Files are read as they were written: a recorded sha256 is compared whenever its file is used.

Hashing gigabytes at each start would take minutes, so a hash is cached together with the file system's data about the
file (size, times, inode), in this process and, for large files, in the cache folder. If that cannot be written, only
time is lost. `full` always reads the bytes: `verify` uses it, since a disk may also lose bits silently.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import TypedDict

from tunix_rt import faults
from tunix_rt.errors import MachineError, TunixError
from tunix_rt.files import JsonObject, read_json, sha256_file, sync_folder, write_json
from tunix_rt.machine import cache_folder

LARGE = 2**20
"""File size in bytes from which a hash is cached on disk."""
REMEMBERED = 1000
"""Number of hashes kept there, the newest ones."""
SETTLED_NS = 2 * 10**9
"""A file written less than this before it was hashed may change again within one tick of its clock."""
MEMORY = "verified.json"

_known: JsonObject = {}
"""Path → [size, modified, changed, inode, sha256], as in the cache folder."""
_lock = Lock()


class Seal(TypedDict):
    """Size and hash of a file when it was written."""

    sha256: str
    bytes: int


def sha256_of(path: Path, full: bool = False) -> str:
    """Hex SHA-256 of a file's bytes, cached as long as the file is untouched; `full`: always read it."""
    name, stat = str(path.resolve()), _stat(path)
    large = stat[0] >= LARGE
    if not full:
        match _known.get(name) or (large and _memory().get(name)):
            case [*known, str(sha256)] if known == stat and len(sha256) == 64:
                _known[name] = [*stat, sha256]
                return sha256
    sha256 = sha256_file(path)
    if _stat(path) == stat:
        _known[name] = [*stat, sha256]
        if large and time.time_ns() - max(stat[1:3]) > SETTLED_NS:
            _remember(name)
    return sha256


def _stat(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _memory() -> JsonObject:
    with suppress(TunixError, OSError, TypeError, ValueError):
        return dict(read_json(cache_folder() / MEMORY))
    return {}


def _remember(name: str) -> None:
    """Replaces the entire file: if two processes write at once, one entry is lost, and its file is hashed again."""
    with _lock, suppress(MachineError, OSError):
        kept = {key: value for key, value in _memory().items() if key != name}
        newest = list(kept.items())[1 - REMEMBERED :]
        write_json(cache_folder() / MEMORY, dict(newest) | {name: _known[name]})


def seal(folder: Path, names: Iterable[str] | None = None) -> dict[str, Seal]:
    """Size and sha256 of files of a folder, by their path in it (default: all except locks and part files)."""
    if names is None:
        files = (file for file in folder.rglob("*") if file.is_file() and file.suffix not in (".lock", ".part"))
        names = sorted(file.relative_to(folder).as_posix() for file in files)
    return {name: Seal(sha256=sha256_of(folder / name), bytes=(folder / name).stat().st_size) for name in names}


def hashes(folder: Path) -> dict[str, str]:
    """The sha256 of every file below a folder, by its path in it."""
    return {name: sealed["sha256"] for name, sealed in seal(folder).items()}


def damage(folder: Path, sealed: Mapping[str, Seal], full: bool = False) -> list[str]:
    """Files that differ from their seal, one line each, beginning with the path; empty if there are none."""
    found = {folder / name: _problem(folder / name, record, full) for name, record in sealed.items()}
    return [f"{file}: {what}" for file, what in found.items() if what is not None]


@contextmanager
def replaced(folder: Path, kept: str | None = None) -> Iterator[Path]:
    """A path beside `folder`, where the block creates what then replaces it; readers keep the old files until then.

    `kept`: a folder in it that is left as an interrupted block left it.
    """
    part = folder.with_name(f"{folder.name}.part")
    for left in list(part.iterdir()) if kept and part.is_dir() else [part]:
        if left.name != kept:
            _remove(left)
    try:
        yield part
    except Exception:
        shutil.rmtree(part, ignore_errors=True)
        raise
    sync_folder(part)
    shutil.rmtree(folder, ignore_errors=True)
    faults.point("removed", folder)
    part.rename(folder)
    faults.point("renamed", folder)
    sync_folder(folder.parent)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _problem(file: Path, sealed: Seal, full: bool) -> str | None:
    if not file.is_file():
        return "missing"
    if (size := file.stat().st_size) != sealed["bytes"]:
        return f"damaged ({size} bytes, {sealed['bytes']} were written)"
    if sha256_of(file, full) != sealed["sha256"]:
        return "damaged (its sha256 is not that of the bytes that were written)"
    return None
