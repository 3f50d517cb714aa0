"""Durable files: a reader sees a whole file or none, and a bad line is named by file and line number.

JSON lines that people give are read strictly (`read_lines`, `read_jsonl`); those of `append_line` may end in a line
that a crash or a full disk tore, which `read_appended` leaves out.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
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
def named(path: Path) -> Iterator[None]:
    """Writing to a full disk raises an OSError without the path; this adds it."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextmanager
def atomic_writer(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary binary file beside `path`; on success it is synced and renamed to `path` in one step."""
    with atomic_path(path) as part, part.open("w+b") as file:
        yield file


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """The same for a writer that opens the file itself: yields the path to write. What is replaced keeps its mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.part"):  # by killed processes
        pid = left.name.split(".")[-2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            left.unlink(missing_ok=True)
    part = path.with_name(f"{path.name}.{threading.get_native_id()}.{os.getpid()}.part")
    try:
        with named(path):
            faults.point("writing", path)
            yield part
            faults.point("written", path)
            sync_file(part)
            if path.exists():
                shutil.copymode(path, part)
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    faults.point("renamed", path)


def apply_umask(path: Path) -> None:
    """Give a file, or all below a folder, the mode of a plain `open`: safetensors 0.8 makes them its owner's alone."""
    allowed = ~umask() & 0o7777
    for file in [path, *path.rglob("*")]:
        if not file.is_symlink():
            mode = file.stat().st_mode | (0o777 if file.is_dir() else 0o666)
            with suppress(PermissionError):  # somebody else's file, or a file system without modes
                file.chmod(mode & allowed)


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


def read_record(path: Path) -> JsonObject:
    """The JSON object in a file; empty if there is no such file."""
    return dict(read_json(path)) if path.exists() else {}


def overwrite_json(path: Path, value: object) -> None:
    """Like `write_json`; if the disk has no room for a second copy, overwrites the first one (a crash leaves half)."""
    try:
        write_json(path, value)
    except OSError as error:
        if error.errno not in FULL:
            raise
        with named(path), path.open("r+b", buffering=0) as file:
            file.write(f"{to_json(value)}\n".encode())
            file.truncate()


def parse_json(raw: bytes, where: str) -> Any:
    """The JSON value of `raw`. Raises DataError beginning with `where`, whatever the bytes are."""
    try:
        return json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
    except json.JSONDecodeError as error:
        line = "" if error.lineno == 1 else f"line {error.lineno} "
        problem = f"not valid JSON ({error.msg} at {line}column {error.colno})"
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets thousands deep
        problem = f"not readable JSON ({error})"
    raise DataError(f"{where}: {problem}")


def write_jsonl(path: Path, records: Iterable[object]) -> None:
    """Write one JSON value per line, whole or not at all."""
    with atomic_writer(path) as file:
        file.writelines(f"{to_json(record)}\n".encode() for record in records)


def read_lines(path: Path) -> Iterator[tuple[int, JsonObject | DataError]]:
    """Yield (line number from 1, object or its error) per line that is not blank. Raises DataError: no text file."""
    with _found(path), path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if b"\0" in raw:
                raise DataError(f"{path}:{number}: binary data, expected UTF-8 text with one JSON object a line")
            if raw.strip():
                yield number, parse_object(raw, f"{path}:{number}")


def parse_object(raw: bytes, where: str) -> JsonObject | DataError:
    """The JSON object of a line, or what is wrong with it."""
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
    """Append one JSON line, unbuffered: the whole line, or if that fails nothing of it.

    A last line torn by a crash is cut off first. Only one process at a time may append to a file.
    """
    line = f"{to_json(record)}\n".encode()
    with named(path), path.open("ab+", buffering=0) as file:
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
        start = file.seek(max(end - BLOCK, 0))
        if lines_end := file.read(end - start).rfind(b"\n") + 1:
            return start + lines_end
        end = start
    return 0


def read_appended(path: Path) -> Iterator[tuple[int, JsonObject]]:
    """Yield (line number from 1, object) of a file of `append_line`; none if the file does not exist yet.

    A torn line (without an end, or no JSON object) is left out, and reported once per process; its writer repeats that
    piece of work.
    """
    for number, value in _appended(path):
        if value is not None:
            yield number, value
        elif (path, number) not in _reported:
            _reported.add((path, number))
            warn(f"{path}:{number}: a torn line (a crash, a full disk), left out")


def is_torn(path: Path) -> bool:
    """Whether `read_appended` leaves a line of the file out."""
    return any(value is None for _, value in _appended(path))


def _appended(path: Path) -> Iterator[tuple[int, JsonObject | None]]:
    """The lines that are not blank; None for a torn one."""
    if path.exists():
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                value = parse_object(raw, str(path)) if raw.endswith(b"\n") else None
                if raw.strip():
                    yield number, value if isinstance(value, dict) else None


def copy_file(source: Path, target: Path) -> str:
    """Copy a file's bytes, whole or not at all; returns their hex SHA-256."""
    with source.open("rb") as read, atomic_writer(target) as written:
        return copy_stream(read, written)


def copy_stream(source: IO[bytes], target: IO[bytes] | None) -> str:
    """Copy all bytes, without `target` only read them; returns their hex SHA-256."""
    hashed = hashlib.sha256()
    while block := source.read(BLOCK):
        hashed.update(block)
        if target is not None:
            target.write(block)
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
