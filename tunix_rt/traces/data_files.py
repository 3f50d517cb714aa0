"""The files that people have → records, each with its place: JSONL, a JSON array, CSV, TSV, Parquet; compressed or not.

What a file holds is seen from its content; its name only tells CSV and TSV from other text.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import lzma
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import IO, Any, cast

from tunix_rt.config.choices import SPLITS, SplitName
from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject
from tunix_rt.traces.adapters import FIELDS
from tunix_rt.traces.json_files import Line, first_line, is_object, json_lines, json_values
from tunix_rt.traces.tables import parquet_rows, table_rows
from tunix_rt.traces.trace import GROUP, meta_field

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
METADATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""Files about data, not of it, that the library `datasets` writes."""
SPLIT_NAMES: dict[str, SplitName] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Words in names of files and folders (huggingface/datasets, `data_files.py`, `SPLIT_KEYWORDS`)."""
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


def found_files(path: str, split: SplitName) -> tuple[Path, ...]:
    """The files of a split that a path names: itself, data files below a folder, or what a glob matches; sorted.

    A folder or a glob with files for several splits, by their names, gives each split its own. Raises DataError if
    there is no file.
    """
    splits = files_of_splits(path)
    return splits.get(split) or splits["train"]


def files_of_splits(path: str) -> dict[SplitName, tuple[Path, ...]]:
    """The files that a path names, by the splits that their names tell; if they tell one at most, all are `train`'s.

    Raises DataError if there is no file.
    """
    place, found = Path(path), _found(path)
    if found == (place,):
        return {"train": found}
    fixed = Path(*takewhile(lambda part: not glob.has_magic(part), place.parts))
    named = {file: _named_split(file.relative_to(place if place.is_dir() else fixed)) for file in found}
    splits = {split: tuple(file for file in found if named[file] == split) for split in SPLITS}
    return {split: files for split, files in splits.items() if files} if splits["train"] else {"train": found}


def _named_split(file: Path) -> SplitName:
    """The split that a file's name tells, or else that of a folder, as the hub reads them; `train` without one."""
    for part in reversed(file.parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in SPLIT_NAMES:
                return SPLIT_NAMES[word]
    return "train"


def _found(path: str) -> tuple[Path, ...]:
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
    hidden = any(part.startswith((".", "_")) for part in name.parts) or name.name in METADATA
    endings = [suffix for suffix in name.suffixes if suffix not in {kind for kind, _ in COMPRESSIONS.values()}]
    return not hidden and endings[-1:] != [] and endings[-1].lower() in SUFFIXES


def read_records(path: Path, noted: Counter[str] | None = None) -> Iterator[Line]:
    """Every record of a file with its place (`file:line`, `file[row]`). Raises DataError: missing, empty, damaged.

    `noted` counts rows that are not as the file has them.
    """
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
            lines = parquet_rows(path, Counter() if noted is None else noted)
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
    error, since it may be a mistyped name. A column under the name of such a field that is not asked for is kept as
    `own_NAME`; `group` is what decides the split, `meta.group`.
    """

    def __init__(self, named: Mapping[str, str], where: str) -> None:
        """`where` starts each message. Raises DataError for a field that no adapter has."""
        if unknown := next((name for name in named if name not in FIELDS), None):
            near = get_close_matches(unknown, FIELDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"{where}: {unknown!r} is no field of any shape{hint} (there are {', '.join(FIELDS)})")
        self._named, self._missing, self._where = dict(named), set(named.values()), where
        self._fields: tuple[str, ...] = ()

    def rename(self, record: JsonObject) -> JsonObject:
        """The record with the fields that the adapter knows."""
        if not self._named:
            return record
        self._missing -= record.keys()
        self._fields = self._fields or tuple(record)
        taken = set(self._named.values())
        rest = {name: value for name, value in record.items() if name not in taken}
        own = {f"own_{name}": rest.pop(name) for name in self._named if name in rest}
        found = {field: record[column] for field, column in self._named.items() if column in record}
        if GROUP in found:
            found["meta"] = meta_field(record, self._where) | {GROUP: found.pop(GROUP)}
        return rest | own | found

    @property
    def used(self) -> dict[str, str]:
        """The columns that records had."""
        return {field: column for field, column in self._named.items() if column not in self._missing}

    def check(self) -> None:
        """Raises DataError for a column that none of the records had that were renamed."""
        if self._missing and self._fields:
            missing = min(self._missing)
            raise DataError(
                f"{self._where}: no record has the field {missing!r} (the first has {', '.join(self._fields)})"
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
