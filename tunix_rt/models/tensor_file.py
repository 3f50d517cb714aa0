"""Writes a safetensors file tensor by tensor and hashes it while writing: no second copy in memory, no re-reading.

The bytes are those that the library `safetensors` writes for the same tensors (tested); the library cannot hash
while writing and gives its files the mode 0600. Format: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tunix_rt.files import JsonObject, atomic_writer

Array = np.ndarray[Any, Any]
CODES = {"int64": "I64", "float32": "F32"}
"""Codes of the dtypes that are written here, in their order in a file."""
ALIGNMENT = 8
"""The header ends at a multiple of this number of bytes."""


def write_weights(path: Path, weights: Mapping[str, Array]) -> str:
    """Write float32 and int64 arrays as a safetensors file, atomically; returns its hex SHA-256."""
    codes = list(CODES)
    ordered = sorted(weights, key=lambda name: (codes.index(weights[name].dtype.name), name))
    start, _ = header({name: (weights[name].dtype.name, weights[name].shape) for name in ordered})
    pieces: Iterator[bytes | memoryview] = chain([start], (_bytes(weights[name]) for name in ordered))
    hashed = hashlib.sha256()
    with atomic_writer(path) as file:
        for piece in pieces:
            hashed.update(piece)
            file.write(piece)
    return hashed.hexdigest()


def _bytes(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def header(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> tuple[bytes, int]:
    """What precedes the data of tensors, given by dtype and shape in their order, and the data's size in bytes."""
    fields: JsonObject = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + np.dtype(dtype).itemsize * math.prod(shape)
        fields[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text, end
