"""Durable files: a reader sees a whole file or none, and a bad line is named by file and line number.

Two kinds of JSON lines: what people give is read strictly (`read_lines`, `read_jsonl`); what we append to ourselves
(`append_line`) may end in a line that a crash or a full disk tore, which `read_appended` leaves out.
Knows bytes, JSON and hashes; nothing of traces, runs or models.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil

from tunix_rt import faults
from tunix_rt.errors import FULL, DataError
from tunix_rt.machine import umask
from tunix_rt.terminal import warn

JsonObject = dict[str, Any]
BLOCK = 2**16
"""Bytes read at once."""
REMEDY = "remove it, and the command that wrote it writes it again"
_reported: set[tuple[Path, int]] = set()
"""Torn lines that this process has reported already: (file, line number)."""


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Writing to a full disk raises an OSError without the path; this adds it."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def _remove_torn(path: Path) -> None:
    """Remove what killed processes had begun to write in place of a file."""
    for part in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
        pid = part.name.split(".")[-2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            part.unlink(missing_ok=True)


@contextmanager
def atomic_writer(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary binary file beside `path`; on success it is synced and renamed to `path` in one step."""
    from boltons.fileutils import AtomicSaver

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{threading.get_native_id()}.{os.getpid()}.part")
    _remove_torn(path)
    try:
        with _named(path), AtomicSaver(str(path), part_file=part.name, overwrite_part=True) as file:
            faults.point("writing", path)
            yield file
            faults.point("written", path)
    except BaseException:  # AtomicSaver leaves it if the disk is full
        part.unlink(missing_ok=True)
        raise
    faults.point("renamed", path)


def apply_umask(path: Path) -> None:
    """Give a file, or every file below a folder, the mode that a plain `open` would have given it.

    For files written by other libraries: safetensors 0.8 makes them readable only by their owner.
    """
    allowed = ~umask()
    found = [path, *path.rglob("*")] if path.is_dir() else [path]
    for file in (file for file in found if not file.is_symlink()):
        mode = file.stat().st_mode
        with suppress(PermissionError):  # somebody else's file, or a file system without modes
            file.chmod((mode | (0o777 if file.is_dir() else 0o666)) & allowed & 0o7777)


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


@contextmanager
def _found(path: Path) -> Iterator[None]:
    """Names a file that cannot be read because it is missing or a folder."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: a folder, expected a file") from None


def read_json(path: Path, remedy: str = REMEDY) -> Any:
    """Read one JSON value. Raises DataError naming the file and, if it is damaged, what to do (`remedy`)."""
    with _found(path):
        raw = path.read_bytes()
    try:
        return parse_json(raw, str(path))
    except DataError as error:
        raise DataError(f"{error}; {remedy}") from None


def overwrite_json(path: Path, value: object) -> None:
    """Like `write_json`; if the disk has no room for a second copy, it overwrites the first one in place.

    For a few words that must be written when all else fails: a crash while overwriting leaves half of them.
    """
    try:
        write_json(path, value)
    except OSError as error:
        if error.errno not in FULL:
            raise
        with _named(path), path.open("r+b", buffering=0) as file:
            file.write((json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8"))
            file.truncate()


def parse_json(raw: bytes, where: str) -> Any:
    """The JSON value of `raw`. Raises DataError beginning with `where`, whatever the bytes are."""
    try:
        return json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not valid JSON ({error.msg} at {_place(error)})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets thousands deep
        raise DataError(f"{where}: not readable JSON ({error})") from None


def _place(error: json.JSONDecodeError) -> str:
    return f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno} column {error.colno}"


def write_jsonl(path: Path, records: Iterable[object]) -> int:
    """Write one JSON value per line, whole or not at all; returns the number of lines."""
    count = 0
    with atomic_writer(path) as file:
        for record in records:
            file.write((to_json(record) + "\n").encode("utf-8"))
            count += 1
    return count


def read_lines(path: Path) -> Iterator[tuple[int, JsonObject | DataError]]:
    """Yield (line number from 1, object) per line that is not blank; a bad line yields its error instead.

    Raises DataError if the file is missing, not a file, or not UTF-8 text.
    """
    with _found(path), path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if b"\0" in raw:
                raise DataError(f"{path}:{number}: binary data, expected UTF-8 text with one JSON object a line")
            if raw.strip():
                yield number, _object_of(raw, f"{path}:{number}")


def _object_of(raw: bytes, where: str) -> JsonObject | DataError:
    try:
        value = parse_json(raw, where)
    except DataError as error:
        return error
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
    """Append one JSON line and flush it to the operating system: the whole line, or if that fails nothing of it.

    A last line torn by a crash is cut off first, so that the file stays valid JSON lines. Only one process at a time
    may append to a file.
    """
    line = (to_json(record) + "\n").encode("utf-8")
    with _named(path), path.open("ab+", buffering=0) as file:
        end = _end_of_lines(file)
        if end < file.seek(0, os.SEEK_END):
            file.truncate(end)
        faults.torn(file, line, path)
        try:
            while line:
                line = line[file.write(line) :]
        except OSError:
            with suppress(OSError):
                file.truncate(end)
            raise
    faults.point("appended", path)


def _end_of_lines(file: IO[bytes]) -> int:
    """Offset after the last complete line."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(end - BLOCK, 0)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def read_appended(path: Path) -> Iterator[tuple[int, JsonObject]]:
    """Yield (line number from 1, object) of a file of `append_line`; none if the file does not exist yet.

    A line torn by a crash, a full disk or a power cut (without an end, or no JSON object) is left out, and reported
    on the terminal once per process. The writer repeats that piece of work.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            value = _object_of(raw, f"{path}:{number}") if raw.endswith(b"\n") else DataError("torn")
            if isinstance(value, dict):
                yield number, value
            elif raw.strip() and (path, number) not in _reported:
                _reported.add((path, number))
                warn(f"{path}:{number}: a torn line (a crash, a full disk), left out")


def is_torn(path: Path) -> bool:
    """Whether `read_appended` leaves a line of the file out."""
    whole = sum(1 for _ in read_appended(path))
    with path.open("rb") as file:
        return sum(1 for raw in file if raw.strip()) > whole


def copy_file(source: Path, target: Path) -> str:
    """Copy a file's bytes, whole or not at all; returns their hex SHA-256."""
    hashed = hashlib.sha256()
    with source.open("rb") as read, atomic_writer(target) as written:
        while piece := read.read(BLOCK):
            hashed.update(piece)
            written.write(piece)
    return hashed.hexdigest()


def sync_file(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder (created, renamed, removed) are on the disk, if the file system allows."""
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


def digest(value: object) -> str:
    """Hex SHA-256 of a JSON value, independent of key order."""
    return sha256_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False).encode("utf-8"))
