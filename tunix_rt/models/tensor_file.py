"""Writes a safetensors file tensor by tensor and hashes it while writing: no second copy in memory, no re-reading.

The bytes are those that the library `safetensors` writes for the same tensors (tested); the library cannot hash
while writing and gives its files the mode 0600. Format: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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
    ordered = sorted(weights.items(), key=lambda item: (codes.index(item[1].dtype.name), item[0]))
    header = json.dumps(_header(ordered), separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    header += b" " * (-len(header) % ALIGNMENT)
    hashed = hashlib.sha256()
    with atomic_writer(path) as file:
        for piece in (len(header).to_bytes(8, "little"), header):
            hashed.update(piece)
            file.write(piece)
        for _, array in ordered:
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            hashed.update(data)
            file.write(data)
    return hashed.hexdigest()


def _header(ordered: list[tuple[str, Array]]) -> JsonObject:
    """Dtype, shape and offsets (bytes from the end of the header) of each tensor."""
    header: JsonObject = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, array in ordered:
        start, end = end, end + array.nbytes
        header[name] = {"dtype": CODES[array.dtype.name], "shape": list(array.shape), "data_offsets": [start, end]}
    return header
