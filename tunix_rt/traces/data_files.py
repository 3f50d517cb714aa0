"""The files that people have → records, each with its place: JSONL, a JSON array, CSV, TSV, Parquet; compressed or not.

What a file holds is seen from its content; its name only tells CSV and TSV from other text.
"""

from __future__ import annotations

import bz2
import csv
import glob
import gzip
import io
import lzma
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject, parse_json, parse_object

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
BOM = b"\xef\xbb\xbf"
PARQUET = b"PAR1"
REFUSED = {
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
    b"PK\x03\x04": "a zip archive; unpack it",
}
"""First bytes of files that are something else → what to do."""
RECORDS = frozenset(("messages", "conversations", "conversation", "prompt", "instruction", "question", "problem"))
"""Fields of a record: an object with one of them is a record, not a wrapper around a list of records."""
ROWS = 1024
"""Rows of a Parquet file read at once."""
Line = tuple[str, JsonObject | DataError]
"""The place of a record, and the record or why there is none."""


def _zstd(path: Path) -> IO[bytes]:
    import pyarrow

    return cast(IO[bytes], pyarrow.input_stream(str(path), compression="zstd"))


COMPRESSIONS: dict[bytes, tuple[str, Callable[[Path], Any]]] = {
    b"\x1f\x8b": (".gz", gzip.open),
    b"\x28\xb5\x2f\xfd": (".zst", _zstd),
    b"BZh": (".bz2", bz2.open),
    b"\xfd7zXZ\x00": (".xz", lzma.open),
}
"""First bytes of a compressed file → its usual suffix and what opens it."""


def found_files(path: str) -> tuple[Path, ...]:
    """The files that a path names: itself, all data files below a folder, or what a glob matches; sorted.

    Raises DataError if there is none.
    """
    place = Path(path)
    if place.is_dir():
        found = [file for file in place.rglob("*") if file.is_file() and _is_data(file.relative_to(place))]
        if not found:
            raise DataError(f"{path}: a folder without data files ({', '.join(SUFFIXES)}, also compressed)")
        return tuple(sorted(found))
    if not place.exists() and glob.has_magic(path):
        found = [Path(name) for name in glob.glob(path, recursive=True) if Path(name).is_file()]  # noqa: PTH207
        if not found:
            raise DataError(f"{path}: no file matches")
        return tuple(sorted(found))
    return (place,)


def _is_data(name: Path) -> bool:
    hidden = any(part.startswith((".", "_")) for part in name.parts)
    endings = [suffix for suffix in name.suffixes if suffix not in {kind for kind, _ in COMPRESSIONS.values()}]
    return not hidden and endings[-1:] != [] and endings[-1].lower() in SUFFIXES


def read_records(path: Path) -> Iterator[Line]:
    """Every record of a file with its place (`file:line`, `file[row]`). Raises DataError: missing, empty, damaged."""
    if not path.is_file():
        raise DataError(f"{path}: {'a folder, expected a file' if path.is_dir() else 'no such file'}")
    with path.open("rb") as file:
        begin = file.read(8)
    opened = next((opens for magic, (_, opens) in COMPRESSIONS.items() if begin.startswith(magic)), None)
    for magic, what in REFUSED.items():
        if begin.startswith(magic):
            raise DataError(f"{path}: {what}")
    number = 0
    try:
        if begin.startswith(PARQUET):
            lines = _parquet(path)
        elif opened is None:
            lines = _text(path, lambda: path.open("rb"))
        else:
            lines = _text(path, lambda: cast(IO[bytes], io.BufferedReader(opened(path))))
        for number, line in enumerate(lines, 1):  # noqa: B007
            yield line
    except (EOFError, OSError, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"{path}: damaged after record {number} ({type(error).__name__}: {error})") from None
    if not number:
        raise DataError(f"{path}: empty, expected records")


def renamed(record: JsonObject, columns: Mapping[str, str], where: str) -> JsonObject:
    """A record with the fields that an adapter knows. Raises DataError if a column is not there."""
    missing = [column for column in columns.values() if column not in record]
    if missing:
        raise DataError(f"{where}: columns: no field {missing[0]!r} (the record has {', '.join(record) or 'none'})")
    rest = {name: value for name, value in record.items() if name not in columns.values() and name not in columns}
    return {name: record[column] for name, column in columns.items()} | rest


def _text(path: Path, opens: Callable[[], IO[bytes]]) -> Iterator[Line]:
    kinds = {kind for kind, _ in COMPRESSIONS.values()}
    suffix = next((name.lower() for name in reversed(path.suffixes) if name.lower() not in kinds), "")
    with opens() as file:
        if suffix in (".csv", ".tsv"):
            yield from _csv(path, file, "\t" if suffix == ".tsv" else None)
            return
        number, first = _first(file)
        if not first.lstrip().startswith(b"[") and (not first.strip() or _is_object(first)):
            yield from _lines(path, file, number, first)
            return
        whole = _whole(path, first + file.read(), number)
    if whole is not None:
        yield from whole
        return
    with opens() as file:
        yield from _lines(path, file, *_first(file))


def _first(file: IO[bytes]) -> tuple[int, bytes]:
    """The number and the bytes of the first line that is not blank, without a byte order mark."""
    number = 0
    for number, raw in enumerate(file, 1):
        line = raw.removeprefix(BOM) if number == 1 else raw
        if line.strip():
            return number, line
    return number, b""


def _is_object(line: bytes) -> bool:
    return isinstance(parse_object(line, ""), dict)


def _lines(path: Path, file: IO[bytes], number: int, first: bytes) -> Iterator[Line]:
    line = first
    while line:
        where = f"{path}:{number}"
        if b"\0" in line:
            yield where, DataError(f"{where}: a NUL byte: binary data, expected UTF-8 text with one JSON object a line")
        elif line.strip():
            yield where, parse_object(line, where)
        line, number = file.readline(), number + 1


def _whole(path: Path, raw: bytes, number: int) -> list[Line] | None:
    """The records of a file that is one JSON value; None if it is not one (then its lines are read)."""
    try:
        value = parse_json(raw, str(path))
    except DataError as error:
        if raw.lstrip().startswith(b"[") and len(raw.split(b"\n", 2)) < 3:
            raise DataError(str(error)) from None
        return None
    if isinstance(value, dict) and RECORDS.isdisjoint(value):
        lists = [item for item in value.values() if isinstance(item, list) and item and isinstance(item[0], dict)]
        if len(lists) != 1:
            return [(f"{path}:{number}", value)]
        value = lists[0]
    if isinstance(value, dict):
        return [(f"{path}:{number}", value)]
    if not isinstance(value, list):
        raise DataError(f"{path}: a JSON {type(value).__name__}, expected objects")
    places = ((f"{path}[{place}]", item) for place, item in enumerate(value))
    wrong = "expected an object"
    return [
        (where, item if isinstance(item, dict) else DataError(f"{where}: a JSON {type(item).__name__}, {wrong}"))
        for where, item in places
    ]


def _csv(path: Path, file: IO[bytes], delimiter: str | None) -> Iterator[Line]:
    """Rows of a table with a header; an empty cell is a missing field."""
    csv.field_size_limit(2**31 - 1)
    try:
        with io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
            header = next((line for line in text if line.strip()), "")
            separator = delimiter or max(",;\t|", key=re.sub(r'"[^"]*"', "", header).count)
            rows = csv.reader(chain([header], text), delimiter=separator, strict=True)
            names, start = next(rows, []), rows.line_num + 1
            for row in rows:
                where, start = f"{path}:{start}", rows.line_num + 1
                if len(row) > len(names):
                    yield where, DataError(f"{where}: {len(row)} cells, the header has {len(names)}")
                elif row:
                    yield where, {name: cell for name, cell in zip(names, row, strict=False) if cell}
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except csv.Error as error:
        raise DataError(f"{path}: not a table of comma-separated values ({error})") from None


def _parquet(path: Path) -> Iterator[Line]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(ROWS):
            for place in range(batch.num_rows):
                where = f"{path}[{number}]"
                yield where, _row(batch.slice(place, 1), where)
                number += 1
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from None


def _row(batch: Any, where: str) -> JsonObject | DataError:
    try:
        return {name: plain(value) for name, value in batch.to_pylist()[0].items() if value is not None}
    except UnicodeDecodeError as error:
        return DataError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start})")


def plain(value: Any) -> Any:
    """A value as JSON has it: dates and the like as text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
