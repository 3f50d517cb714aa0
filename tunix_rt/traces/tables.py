"""Tables → records, each with its place: CSV, TSV, Parquet. An empty cell is a missing field."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any

from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject
from tunix_rt.traces.json_files import Line

ROWS = 1024
"""Rows of a Parquet file read at once."""
SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
SAVE = "save the file as UTF-8 (a spreadsheet calls it CSV UTF-8)"


def table_rows(path: Path, file: IO[bytes], delimiter: str | None) -> Iterator[Line]:
    """Rows of comma- or tab-separated values with a header. A row that is not well formed is an error of its own.

    A first line `sep=;`, by which a spreadsheet is told the separator, is none of the table. Raises DataError for a
    header with a name twice, a quote that is never closed, and bytes that are not UTF-8.
    """
    csv.field_size_limit(2**31 - 1)
    rows, above = None, 0
    try:
        with io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
            header, above = _header(text)
            if told := SEPARATOR.fullmatch(header):
                delimiter = told[1]
                header, more = _header(text)
                above += more + 1
            separator = delimiter or max(",;\t|", key=re.sub(r'"[^"]*"', "", header).count)
            rows = csv.reader(chain([header], text), delimiter=separator, strict=True)
            names, start = _names(next(rows, []), str(path)), above + rows.line_num + 1
            while True:
                where = f"{path}:{start}"
                try:
                    row = next(rows)
                except StopIteration:
                    return
                except csv.Error as error:
                    if "unexpected end of data" in str(error):
                        raise DataError(f"{where}: a quote is opened in this row and never closed") from None
                    yield where, DataError(f"{where}: not a row of comma-separated values ({error})")
                    row = []
                start = above + rows.line_num + 1
                if len(row) > len(names):
                    yield where, DataError(f"{where}: {len(row)} cells, the header has {len(names)}")
                elif row:
                    yield where, {name: cell for name, cell in zip(names, row, strict=False) if cell}
    except UnicodeDecodeError as error:
        line = 1 if rows is None else above + rows.line_num + 1
        raise DataError(f"{path}: not UTF-8 text at or behind line {line} ({error.reason}); {SAVE}") from None
    except csv.Error as error:
        raise DataError(f"{path}: not a table of comma-separated values ({error})") from None


def _header(text: Iterable[str]) -> tuple[str, int]:
    """The first line that is not blank, and how many there are above it."""
    return next(((line, above) for above, line in enumerate(text) if line.strip()), ("", 0))


def _names(header: Sequence[str], where: str) -> list[str]:
    """The names of columns; one without a name (an index that pandas writes) is called by its number."""
    names = [name or f"column {number}" for number, name in enumerate(header, 1)]
    if again := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{where}: two columns are called {again[0]!r}; rename or remove one of them")
    return names


def parquet_rows(path: Path, noted: Counter[str]) -> Iterator[Line]:
    """Rows of a Parquet file. Raises DataError if it is damaged or has a column twice."""
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        file = pyarrow.parquet.ParquetFile(path)
        _names(file.schema_arrow.names, str(path))
        for batch in file.iter_batches(ROWS):
            for place in range(batch.num_rows):
                where = f"{path}[{number}]"
                yield where, _row(batch.slice(place, 1), where, noted)
                number += 1
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from None


def _row(batch: Any, where: str, noted: Counter[str]) -> JsonObject | DataError:
    try:
        return arrow_row(batch.to_pylist()[0], noted)
    except UnicodeDecodeError as error:
        return DataError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start})")


def arrow_row(row: Mapping[str, Any], noted: Counter[str]) -> JsonObject:
    """A row of an Arrow table as JSON has it, without the fields that are null.

    All objects of a column have the same fields there: those that other rows have are null in this one, and to leave
    them in would show a chat template names that the row never had. Rows that have such are counted.
    """
    nulls = Counter[str]()
    plain = {name: _plain(value, nulls) for name, value in row.items() if value is not None}
    noted["rows without the null fields of their nested columns"] += bool(nulls)
    return plain


def _plain(value: Any, nulls: Counter[str]) -> Any:
    """Dates and the like as text; bytes that are no text stay bytes."""
    if isinstance(value, dict):
        nulls.update(key for key, item in value.items() if item is None)
        return {str(key): _plain(item, nulls) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item, nulls) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return _text(value) if isinstance(value, bytes) else str(value)


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value
