"""Records on disk while a dataset is checked and split: in memory stays of each where it lies, its id and its keys.

So a source may be larger than memory: a record takes about 350 bytes of it. The files have no name (`tempfile`), so
nothing is left behind by a crash.
"""

from __future__ import annotations

import json
import tempfile
import weakref
from array import array
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from tunix_rt.files import to_json
from tunix_rt.traces.keys import SIZE, Fingerprints, Keys, fingerprints, group_hash, keys_of
from tunix_rt.traces.recorded import parse_trace
from tunix_rt.traces.sources import Record
from tunix_rt.traces.trace import Trace


class _File:
    """Byte strings in a file without a name, by their number."""

    def __init__(self, folder: Path | None) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed when nobody needs it
        self._ends, self._at_end = array("Q", [0]), True
        weakref.finalize(self, self._file.close)

    def add(self, data: bytes) -> None:
        if not self._at_end:  # it would flush what is not written yet
            self._file.seek(self._ends[-1])
        self._at_end = True
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))

    def read(self, number: int) -> bytes:
        self._at_end = False
        self._file.seek(self._ends[number])
        return self._file.read(self._ends[number + 1] - self._ends[number])


class Spool:
    """Records in the order in which they were read, with what is compared of them."""

    def __init__(self, folder: Path | None, ngram: int, seed: int) -> None:
        """`folder`: on the disk that has room for a copy of the data; None: the system's temporary folder."""
        self._lines, self._prints = _File(folder), _File(folder)
        self._keys, self._questions, self._groups = bytearray(), array("L"), array("Q")
        self._ngram, self._seed = ngram, seed

    def add(self, record: Record) -> Spooled:
        """Write a record at the end."""
        prints = fingerprints(record.trace, self._ngram)
        self._lines.add(to_json([record.where, record.trace.to_json()]).encode())
        self._prints.add(prints.hashes.tobytes())
        self._questions.append(prints.questions)
        self._keys += keys_of(record.trace).packed()
        self._groups.append(group_hash(record.trace, self._seed))
        return Spooled(self, len(self._groups) - 1, record.trace.id)

    def line(self, number: int) -> bytes:
        """The record as JSON: its place, and the trace with the id that it had when it was read."""
        return self._lines.read(number)

    def keys(self, number: int) -> Keys:
        """Its keys."""
        return Keys.unpacked(bytes(self._keys[number * SIZE : (number + 1) * SIZE]))

    def fingerprints(self, number: int, ngram: int) -> Fingerprints:
        """Its fingerprints, for runs of as many words as the spool was made for."""
        assert ngram == self._ngram
        return Fingerprints(self._questions[number], array("q", self._prints.read(number)))

    def group(self, number: int) -> int:
        """The hash that decides its split."""
        return self._groups[number]


@dataclass(frozen=True, slots=True)
class Spooled:
    """A record in a spool, read when it is asked for."""

    spool: Spool
    number: int
    id: str
    """Of the trace; unique once the dataset is collected."""

    @property
    def where(self) -> str:
        """The record's place in its source."""
        return str(json.loads(self.spool.line(self.number))[0])

    @property
    def trace(self) -> Trace:
        """The trace, with its id."""
        return read_line(self.spool.line(self.number), self.id)[1]

    @property
    def group(self) -> int:
        """The hash that decides its split."""
        return self.spool.group(self.number)

    @property
    def keys(self) -> Keys:
        """What is compared of the trace."""
        return self.spool.keys(self.number)

    def fingerprints(self, ngram: int) -> Fingerprints:
        """What is compared between splits."""
        return self.spool.fingerprints(self.number, ngram)


def read_line(line: bytes, identity: str) -> tuple[str, Trace]:
    """(place, trace) of a spooled line, the trace with its final id."""
    where, record = json.loads(line)
    return where, replace(parse_trace(record, where), id=identity)
