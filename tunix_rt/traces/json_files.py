"""Files of JSON → records, each with its place: one object a line, one value for all, or values one after the other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject, parse_json, parse_object

BOM = b"\xef\xbb\xbf"
RECORDS = frozenset(("messages", "conversations", "conversation", "prompt", "instruction", "question", "problem"))
"""Fields of a record: an object with one of them is a record, not a wrapper around a list of records."""
Line = tuple[str, JsonObject | DataError]
"""The place of a record, and the record or why there is none."""


def first_line(file: IO[bytes]) -> tuple[int, bytes]:
    """The number and the bytes of the first line that is not blank, without a byte order mark."""
    number = 0
    for number, raw in enumerate(file, 1):
        line = raw.removeprefix(BOM) if number == 1 else raw
        if line.strip():
            return number, line
    return number, b""


def is_object(line: bytes) -> bool:
    """Whether a line is a JSON object by itself."""
    return isinstance(parse_object(line, ""), dict)


def json_lines(path: Path, file: IO[bytes], number: int, first: bytes) -> Iterator[Line]:
    """The record of each line: `first`, which has this number, and all that follow in the file."""
    line = first
    while line:
        where = f"{path}:{number}"
        if b"\0" in line:
            yield where, DataError(f"{where}: a NUL byte: binary data, expected UTF-8 text with one JSON object a line")
        elif line.strip():
            yield where, parse_object(line, where)
        line, number = file.readline(), number + 1


def json_values(path: Path, raw: bytes, number: int) -> Iterator[Line] | None:
    """The records of a file that is one JSON value, or several that are written over lines, one after the other.

    `raw` begins in the line with this number. None if each line is a value of its own, though the first is damaged or
    no record. Raises DataError if a value is cut off or damaged.
    """
    try:
        return _records(path, parse_json(raw, str(path)), number)
    except DataError:
        first, *others = [line for line in raw.split(b"\n", 64) if line.strip()][:64]
        if is_object(b"".join(others[:1])) or (others and isinstance(_parsed(first), list)):
            return None
    try:
        return _one_after_the_other(path, raw.decode("utf-8"), number)
    except UnicodeDecodeError as error:
        line = number + raw.count(b"\n", 0, error.start)
        begin = raw.rfind(b"\n", 0, error.start) + 1
        place = f"{error.reason} at byte {error.start - begin} of the line"
        raise DataError(f"{path}:{line}: not UTF-8 text ({place}); save it as UTF-8") from None


def _parsed(line: bytes) -> Any:
    try:
        return parse_json(line, "")
    except DataError:
        return None


def _one_after_the_other(path: Path, text: str, number: int) -> Iterator[Line]:
    """The records of values that white space separates."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        if text[at].isspace():
            number, at = number + (text[at] == "\n"), at + 1
            continue
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            line = number + text.count("\n", at, getattr(error, "pos", at))
            raise DataError(
                f"{path}: the JSON value that begins in line {number} is cut off or damaged in line {line} "
                f"({getattr(error, 'msg', error)}): fetch the file again, or mend it there"
            ) from None
        yield from _records(path, value, number)
        number, at = number + text.count("\n", at, end), end


def _records(path: Path, value: Any, number: int) -> Iterator[Line]:
    """The records in a value that begins in a line: itself, its items, or those of the only list of objects in it."""
    if isinstance(value, dict) and RECORDS.isdisjoint(value):
        lists = [item for item in value.values() if isinstance(item, list) and item and isinstance(item[0], dict)]
        value = lists[0] if len(lists) == 1 else value
    if isinstance(value, dict):
        return iter([(f"{path}:{number}", value)])
    if not isinstance(value, list):
        raise DataError(f"{path}: a JSON {type(value).__name__}, expected objects")
    wrong = "expected an object"
    places = ((f"{path}[{place}]", item) for place, item in enumerate(value))
    return (
        (where, item if isinstance(item, dict) else DataError(f"{where}: a JSON {type(item).__name__}, {wrong}"))
        for where, item in places
    )
