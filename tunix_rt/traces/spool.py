"""Records on disk while a dataset is checked and split: in memory stays of each only where it lies, and its id.

So a source may be larger than memory. The file has no name (`tempfile`), so nothing is left behind by a crash.
"""

from __future__ import annotations

import json
import tempfile
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from tunix_rt.files import to_json
from tunix_rt.traces.sources import Record
from tunix_rt.traces.trace import Trace, parse_trace


class Spool:
    """A file of records in the order in which they were read."""

    def __init__(self, folder: Path | None) -> None:
        """`folder`: on the disk that has room for a copy of the data; None: the system's temporary folder."""
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed when nobody needs it
        self._end = 0
        weakref.finalize(self, self._file.close)

    def add(self, record: Record) -> Spooled:
        """Write a record at the end."""
        line = f"{to_json([record.where, record.trace.to_json()])}\n".encode()
        self._file.seek(self._end)
        self._file.write(line)
        place, self._end = self._end, self._end + len(line)
        return Spooled(self, place, record.trace.id)

    def read(self, place: int) -> Record:
        """The record that begins at a byte."""
        self._file.seek(place)
        where, record = json.loads(self._file.readline())
        return Record(where, parse_trace(record, where))


@dataclass(frozen=True, slots=True)
class Spooled:
    """A record in a spool, read when it is asked for."""

    spool: Spool
    place: int
    id: str
    """Of the trace; unique once the dataset is collected."""

    @property
    def where(self) -> str:
        """The record's place in its source."""
        return self.spool.read(self.place).where

    @property
    def trace(self) -> Trace:
        """The trace, with its id."""
        return replace(self.spool.read(self.place).trace, id=self.id)
