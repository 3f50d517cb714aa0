"""Traces as token ids and target weights: their memory-mapped store.

Targets are shifted when an example is read, so no target can belong to another trace.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from tunix_rt.batches.pack import Int64
from tunix_rt.errors import DataError
from tunix_rt.files import atomic_writer, read_json
from tunix_rt.models.folder import Float32

Int32 = np.ndarray[Any, np.dtype[np.int32]]
VERSION = 1
TOKENS, WEIGHTS, INDEX = "tokens.int32", "weights.float32", "index.json"
REJECTED = "rejected"
"""Folder of the worse completions of pairs, in the order of the better ones, in whose folder it is."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One trace as numbers: `ids` int32 [N] and `weights` float32 [N], the weight of each token as a target."""

    ids: Int32
    weights: Float32
    rewritten: str = ""
    """What the tokenizer's own normaliser changed in its text; empty if nothing."""


class EncodedWriter:
    """Writes the numbers of traces one after the other."""

    def __init__(self, tokens: IO[bytes], weights: IO[bytes]) -> None:
        self._tokens, self._weights = tokens, weights
        self.names: list[str] = []
        self.lengths = array("q")

    def add(
        self, names: Sequence[str], lengths: Sequence[int], tokens: bytes | bytearray, weights: bytes | bytearray
    ) -> None:
        """Append traces: ids, numbers of tokens, tokens (int32) and weights (float32) of all.

        Raises DataError for a trace of fewer than two tokens: it has no target.
        """
        for name, length in zip(names, lengths, strict=True):
            if length < 2:
                raise DataError(f"trace {name}: {length} tokens, at least 2 are needed")
        self._tokens.write(tokens)
        self._weights.write(weights)
        self.names += names
        self.lengths.extend(lengths)


@contextmanager
def encoded_writer(folder: Path) -> Iterator[EncodedWriter]:
    """Writes a folder of encoded traces; the index is written last and marks it complete."""
    (folder / INDEX).unlink(missing_ok=True)
    with atomic_writer(folder / TOKENS) as tokens, atomic_writer(folder / WEIGHTS) as weights:
        writer = EncodedWriter(tokens, weights)
        yield writer
    index = {"version": VERSION, "ids": writer.names, "num_tokens": writer.lengths.tolist()}
    with atomic_writer(folder / INDEX) as file:  # piece by piece: the text of a million traces is large
        for piece in json.JSONEncoder(ensure_ascii=False, indent=2).iterencode(index):
            file.write(piece.encode())
        file.write(b"\n")


def write_encoded(folder: Path, items: Iterable[tuple[str, Encoded]]) -> int:
    """Write (trace id, numbers). Raises what `EncodedWriter.add` raises; returns the number of traces."""
    with encoded_writer(folder) as writer:
        for name, item in items:
            ids, weights = item.ids.astype("<i4").tobytes(), item.weights.astype("<f4").tobytes()
            writer.add([name], [len(item.ids)], ids, weights)
    return len(writer.names)


@dataclass(frozen=True, slots=True)
class EncodedDataset:
    """The traces of one split as numbers, read from disk as needed."""

    ids: tuple[str, ...]
    """Trace ids."""
    lengths: Int64
    """int64 [n]: positions that each takes in a row, one fewer than its tokens."""
    _tokens: Int32
    _weights: Float32
    _starts: Int64

    @classmethod
    def open(cls, folder: Path) -> EncodedDataset:
        """Memory-map what `write_encoded` wrote. Raises DataError if it is missing, truncated or of another version."""
        index = read_json(folder / INDEX, f"delete {folder} to prepare it again")
        if not isinstance(index, dict) or index.get("version") != VERSION:
            raise DataError(f"{folder / INDEX}: not of version {VERSION}; delete {folder} to prepare it again")
        counts = np.array(index["num_tokens"], dtype=np.int64)
        total = int(counts.sum())
        return cls(
            ids=tuple(index["ids"]),
            lengths=counts - 1,
            _tokens=_mapped(folder / TOKENS, np.dtype("<i4"), total),
            _weights=_mapped(folder / WEIGHTS, np.dtype("<f4"), total),
            _starts=np.cumsum(counts) - counts,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def sequence(self, index: int) -> tuple[Int32, Float32]:
        """(ids, weights), each [N]: the whole trace, unshifted, with each token's own weight as a target."""
        first = int(self._starts[index])
        last = first + int(self.lengths[index]) + 1
        return self._tokens[first:last], self._weights[first:last]

    def example(self, index: int) -> tuple[Int32, Int32, Float32]:
        """(tokens, targets, weights), each [N - 1]: a position's target is the next token."""
        ids, weights = self.sequence(index)
        return ids[:-1], ids[1:], weights[1:]


def _mapped(path: Path, dtype: np.dtype[Any], total: int) -> np.ndarray[Any, Any]:
    size, expected = path.stat().st_size if path.is_file() else -1, total * dtype.itemsize
    if size != expected:
        found = "missing" if size < 0 else f"{size} bytes"
        raise DataError(f"{path}: {found}, expected {expected} bytes; delete {path.parent} to prepare it again")
    # A plain array, since cutting a `memmap` takes several times as long.
    return np.asarray(np.memmap(path, dtype=dtype, mode="r")) if total else np.zeros(0, dtype=dtype)
