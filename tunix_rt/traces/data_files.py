"""The files that people have → records, each with its place: JSONL, a JSON array, CSV, TSV, Parquet; compressed or not.

What a file holds is seen from its content; its name only tells CSV and TSV from other text.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import lzma
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject
from tunix_rt.traces.json_files import Line, first_line, is_object, json_lines, json_values
from tunix_rt.traces.tables import parquet_rows, table_rows

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
PARQUET = b"PAR1"
REFUSED = {
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
    b"PK\x03\x04": "a zip archive, or a spreadsheet; unpack it, or save its table as CSV UTF-8",
}
"""First bytes of files that are something else → what to do."""


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
            lines = parquet_rows(path)
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


class Columns:
    """Fields of an adapter → columns of a file. An empty cell is a missing field; a column that no record has is an
    error, since it may be a mistyped name.
    """

    def __init__(self, named: Mapping[str, str]) -> None:
        self._named, self._missing = dict(named), set(named.values())
        self._fields: tuple[str, ...] = ()

    def rename(self, record: JsonObject) -> JsonObject:
        """The record with the fields that the adapter knows."""
        if not self._named:
            return record
        self._missing -= record.keys()
        self._fields = self._fields or tuple(record)
        others = {*self._named, *self._named.values()}
        rest = {name: value for name, value in record.items() if name not in others}
        return {field: record[column] for field, column in self._named.items() if column in record} | rest

    def check(self, where: str) -> None:
        """Raises DataError for a column that none of the records had that were renamed."""
        if self._missing and self._fields:
            missing = min(self._missing)
            raise DataError(
                f"{where}: columns: no record has the field {missing!r} (the first has {', '.join(self._fields)})"
            )


def _text(path: Path, opens: Callable[[], IO[bytes]]) -> Iterator[Line]:
    kinds = {kind for kind, _ in COMPRESSIONS.values()}
    suffix = next((name.lower() for name in reversed(path.suffixes) if name.lower() not in kinds), "")
    if suffix in (".csv", ".tsv") and not _begins_with_object(opens):
        with opens() as file:
            yield from table_rows(path, file, "\t" if suffix == ".tsv" else None)
        return
    with opens() as file:
        number, first = first_line(file)
        if first.lstrip()[:1] not in (b"[", b"{") or is_object(first):
            yield from json_lines(path, file, number, first)
            return
        whole = json_values(path, first + file.read(), number)
    if whole is not None:
        yield from whole
        return
    with opens() as file:
        yield from json_lines(path, file, *first_line(file))


def _begins_with_object(opens: Callable[[], IO[bytes]]) -> bool:
    """Whether a file that is called a table holds JSON lines."""
    with opens() as file:
        return is_object(first_line(file)[1])
