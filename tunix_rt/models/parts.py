"""A part of a tensor: the rows and columns that a process holds. Read by slices, written at its place in the file.

So that processes restore and save a model of which none holds the whole, and nothing is gathered. Independent of how a
model is divided: a backend says which part of each tensor a process holds, by a `PartOf`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import ml_dtypes  # noqa: F401  (gives numpy the dtype bfloat16, which safetensors then returns)
import numpy as np

Array = np.ndarray[Any, Any]
Float32 = np.ndarray[Any, np.dtype[np.float32]]
FLOAT32 = np.dtype(np.float32)
Shape = tuple[int, ...]
Range = tuple[int, int]
"""The indices from the first up to, but not including, the second."""
Place = tuple[slice, ...]
"""An index of the first axes of a tensor."""


@dataclass(frozen=True, slots=True)
class Part:
    """Where the rows and the columns meet. Ranges are ascending and do not overlap; one may be empty."""

    rows: tuple[Range, ...] | None = None
    """Ranges of the first axis; None: all of it."""
    columns: tuple[Range, ...] | None = None
    """Ranges of the second axis; None: all of it."""

    def shape(self, whole: Shape) -> Shape:
        """The shape of this part of a tensor of shape `whole`."""
        sizes = [sum(stop - start for start, stop in ranges) for ranges in self._ranges(whole)]
        return (*sizes, *whole[len(sizes) :])

    def blocks(self, whole: Shape) -> Iterator[tuple[Place, Place]]:
        """Each rectangle of this part that is not empty: its place in an array of `shape`, and in the whole tensor."""
        axes = [list(_placed(ranges)) for ranges in self._ranges(whole)]
        for block in product(*axes):
            yield tuple(own for own, _ in block), tuple(there for _, there in block)

    def of(self, array: Array) -> Array:
        """This part of a whole array; a view where it is one block."""
        blocks = [there for _, there in self.blocks(array.shape)]
        return array[blocks[0]] if len(blocks) == 1 else self._joined(array, array.shape, array.dtype)

    def read(self, tensor: Any, dtype: np.dtype[Any] = FLOAT32) -> Array:
        """This part of a tensor in an open safetensors file, given as its `get_slice`, in this dtype.

        Only its bytes are read, and one block is in memory beside the result.
        """
        whole = tuple(tensor.get_shape())
        blocks = [there for _, there in self.blocks(whole)]
        if len(blocks) == 1:
            return np.asarray(tensor[blocks[0]], dtype)
        return self._joined(tensor, whole, dtype)

    def _joined(self, source: Any, whole: Shape, dtype: np.dtype[Any]) -> Array:
        found = np.empty(self.shape(whole), dtype)
        for own, there in self.blocks(whole):
            found[own] = source[there]
        return found

    def _ranges(self, whole: Shape) -> list[tuple[Range, ...]]:
        """The ranges of the first and second axis, as far as the tensor has them."""
        return [
            ((0, size),) if ranges is None else ranges
            for size, ranges in zip(whole, (self.rows, self.columns), strict=False)
        ]


WHOLE = Part()
PartOf = Callable[[str, Shape], Part]
"""(name, shape of the whole tensor) → the part of it that a process holds."""


def whole(name: str, shape: Shape) -> Part:
    """The `PartOf` of a process that holds everything."""
    return WHOLE


def nth_rows(size: int, index: int, count: int) -> Range:
    """The rows of process `index` of `count`, ceil(size / count) each; the last ones may have fewer, or none."""
    share = -(-size // count)
    return min(index * share, size), min((index + 1) * share, size)


def write_part(file: int, start: int, shape: Shape, part: Part, array: Array) -> int:
    """Write a part, an array of `part.shape(shape)`, into the file (a descriptor) whose byte `start` begins the tensor.

    No other byte is touched, so that several processes and threads may write one file at the same time.
    Returns the number of bytes.
    """
    written = 0
    for own, there in part.blocks(shape):
        block = array[own]
        for offset, piece in _runs(shape, there, block):
            _write_at(file, start + offset * array.itemsize, piece)
            written += len(piece)
    return written


def _placed(ranges: tuple[Range, ...]) -> Iterator[tuple[slice, slice]]:
    """Each range that is not empty, where it lies among all of them, and as it is."""
    taken = 0
    for start, stop in ranges:
        if stop > start:
            yield slice(taken, taken + stop - start), slice(start, stop)
            taken += stop - start


def _runs(shape: Shape, there: Place, block: Array) -> Iterator[tuple[int, memoryview]]:
    """What of a block lies together in the file: its number of values from the tensor's first, and its bytes."""
    width = math.prod(shape[1:])
    first = there[0].start * width if there else 0
    if len(there) < 2 or block.shape[1] == shape[1]:
        yield first, _bytes(block)
        return
    first += there[1].start * math.prod(shape[2:])
    for number, row in enumerate(block):
        yield first + number * width, _bytes(row)


def _bytes(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _write_at(file: int, offset: int, data: memoryview) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
