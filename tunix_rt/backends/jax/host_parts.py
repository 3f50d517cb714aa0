"""Parts of arrays on the host: where they lie, filled up to equal sizes, and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from tunix_rt.models.parts import Range


def before(ranges: Sequence[Range], index: int) -> int:
    """How much of the ranges lies before `index`."""
    return sum(max(0, min(stop, index) - start) for start, stop in ranges)


def filled(array: Any, axis: int, size: int) -> Any:
    """`array` with zeros at the end of an axis, up to `size`."""
    missing = size - array.shape[axis]
    return np.pad(array, [(0, missing if at == axis else 0) for at in range(array.ndim)]) if missing else array


def joined(array: jax.Array, axis: int | None, shards: Sequence[int], each: int) -> Any:
    """A host copy of this process's parts, on the cut axis those with these numbers, `each` wide."""
    shape = list(array.shape)
    if axis is not None:
        shape[axis] = each * len(shards)
    found = np.empty(shape, array.dtype)
    for part in array.addressable_shards:
        index = list(part.index)
        if axis is not None:
            number = index[axis].start // each
            if number not in shards:
                continue
            first = shards.index(number) * each
            index[axis] = slice(first, first + each)
        found[tuple(index)] = part.data
    return found
