"""Durable files: a reader sees a whole file or none, and a bad line is named by file and line number.

Knows bytes, JSON and hashes; nothing of traces, runs or models.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tunix_rt.errors import DataError

JsonObject = dict[str, Any]
COPIED_AT_ONCE = 1 << 20
"""Bytes."""


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Writing to a full disk raises an OSError that does not say where; this adds it."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def atomic_writer(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary binary file beside `path`; on success it is synced and takes the name in one step."""
    from boltons.fileutils import AtomicSaver

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with _named(path), AtomicSaver(str(path), part_file=part.name, overwrite_part=True) as file:
            yield file
    except BaseException:  # AtomicSaver leaves it where the disk is full
        part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> str:
    """Write UTF-8 text, whole or not at all; returns the hex SHA-256 of what was written."""
    data = text.encode("utf-8")
    with atomic_writer(path) as file:
        file.write(data)
    return sha256_bytes(data)


def to_json(value: object) -> str:
    """One line of JSON, keys in their own order, non-ASCII kept, NaN refused (it is not JSON)."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def write_json(path: Path, value: object) -> str:
    """Write indented JSON, whole or not at all; returns the hex SHA-256 of what was written."""
    return write_text(path, json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read one JSON value. Raises DataError that names the file."""
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not valid JSON ({error})") from None


def write_jsonl(path: Path, records: Iterable[object]) -> int:
    """Write one JSON value a line, whole or not at all; returns the number of lines."""
    count = 0
    with atomic_writer(path) as file:
        for record in records:
            file.write((to_json(record) + "\n").encode("utf-8"))
            count += 1
    return count


def read_lines(path: Path) -> Iterator[tuple[int, JsonObject | DataError]]:
    """Yield (line number from 1, object) per line that is not blank; a bad line yields its error instead.

    Raises DataError where the file is missing, not a file, or not UTF-8 text.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if b"\0" in raw:
                    raise DataError(f"{path}:{number}: binary data, expected UTF-8 text with one JSON object a line")
                if raw.strip():
                    yield number, _object_of(raw, f"{path}:{number}")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: a folder, expected a file") from None


def _object_of(raw: bytes, where: str) -> JsonObject | DataError:
    try:
        value = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return DataError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start})")
    except json.JSONDecodeError as error:
        return DataError(f"{where}: not valid JSON ({error.msg} at column {error.colno})")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets thousands deep
        return DataError(f"{where}: not readable JSON ({error})")
    if not isinstance(value, dict):
        return DataError(f"{where}: a JSON {type(value).__name__}, expected an object")
    return value


def read_jsonl(path: Path) -> Iterator[tuple[int, JsonObject]]:
    """Like `read_lines`, but the first bad line is raised."""
    for number, value in read_lines(path):
        if isinstance(value, DataError):
            raise value
        yield number, value


def append_line(path: Path, record: object) -> None:
    """Append one JSON line and flush it to the operating system; a torn last line is ended first."""
    with _named(path), path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write((to_json(record) + "\n").encode("utf-8"))


def copy_file(source: Path, target: Path) -> str:
    """Copy a file's bytes, whole or not at all; returns their hex SHA-256."""
    hashed = hashlib.sha256()
    with source.open("rb") as read, atomic_writer(target) as written:
        while piece := read.read(COPIED_AT_ONCE):
            hashed.update(piece)
            written.write(piece)
    return hashed.hexdigest()


def sync_file(path: Path) -> None:
    """Wait until what a file holds is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder (made, renamed, removed) are on the disk, where the file system can say so."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_tree(folder: Path) -> dict[str, str]:
    """Hex SHA-256 of every file below a folder, by its path in there; locks and part files are left out."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.suffix not in (".lock", ".part"))
    return {file.relative_to(folder).as_posix(): sha256_file(file) for file in files}


def digest(value: object) -> str:
    """Hex SHA-256 of a JSON value, independent of key order."""
    return sha256_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False).encode("utf-8"))
