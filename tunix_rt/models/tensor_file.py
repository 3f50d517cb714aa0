"""One safetensors file: read with the library, written tensor by tensor, or in parts by several processes.

The bytes are those that the library `safetensors` writes for the same tensors (tested); the library cannot hash
while writing, cannot write a part of a tensor, and gives its files the mode 0600. Format:
https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tunix_rt import faults
from tunix_rt.errors import ModelError
from tunix_rt.files import JsonObject, atomic_writer, named, sha256_file
from tunix_rt.models.parts import WHOLE, Array, Float32, Part, Shape, write_part

CODES = {"int64": "I64", "float32": "F32", "uint8": "U8"}
"""Codes of the dtypes that are written here, in their order in a file."""
READABLE = ("F32", "F16", "BF16", "F64")
ALIGNMENT = 8
"""The header ends at a multiple of this number of bytes."""
UNFINISHED = ".part"
"""What the name of a file ends in while several processes write it."""
Specs = Mapping[str, tuple[str, Shape]]
"""Name of a tensor → its dtype and shape."""


def specs_of(tensors: Mapping[str, Array]) -> Specs:
    """Dtype and shape of arrays."""
    return {name: (array.dtype.name, array.shape) for name, array in tensors.items()}


def size_of(spec: tuple[str, Shape]) -> int:
    """Bytes that a tensor takes."""
    dtype, shape = spec
    return np.dtype(dtype).itemsize * math.prod(shape)


@dataclass(frozen=True, slots=True)
class FileLayout:
    """Where everything lies in a file."""

    header: bytes
    """What precedes the data."""
    offsets: Mapping[str, int]
    """Where the data of each tensor begin, in bytes from the start of the file; in the order of the file."""
    size: int
    """Bytes of the whole file."""

    @classmethod
    def of(cls, specs: Specs) -> FileLayout:
        """The layout of a file with these tensors: by dtype, then by name, as the library orders them."""
        fields: JsonObject = {"__metadata__": {"format": "pt"}}
        starts, end = dict[str, int](), 0
        for name in sorted(specs, key=lambda name: (list(CODES).index(specs[name][0]), name)):
            dtype, shape = specs[name]
            starts[name], end = end, end + size_of(specs[name])
            fields[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [starts[name], end]}
        text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
        text += b" " * (-len(text) % ALIGNMENT)
        header = len(text).to_bytes(8, "little") + text
        return cls(header, {name: len(header) + start for name, start in starts.items()}, len(header) + end)


def write_weights(path: Path, weights: Mapping[str, Array]) -> str:
    """Write arrays of these dtypes (CODES) as a safetensors file, atomically; returns its hex SHA-256."""
    layout = FileLayout.of(specs_of(weights))
    pieces: Iterator[bytes | memoryview] = chain([layout.header], (_bytes(weights[name]) for name in layout.offsets))
    hashed = hashlib.sha256()
    with atomic_writer(path) as file:
        for piece in pieces:
            hashed.update(piece)
            file.write(piece)
    return hashed.hexdigest()


def _bytes(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def write_parts(path: Path, specs: Specs, parts: Iterable[tuple[str, Part, Array]], header: bool) -> int:
    """Write the parts of a file's tensors (`specs`) that this process has, and the header if it is asked to.

    Each process does so with its own; together they give the bytes of `write_weights`, at the name that `finish_parts`
    replaces. On return what was written is on the disk. Returns the number of bytes.
    """
    written = 0
    layout, unfinished = FileLayout.of(specs), path.with_name(path.name + UNFINISHED)
    with named(path):
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            faults.point("writing parts of", path)
            if header:
                written += write_part(file, 0, (len(layout.header),), WHOLE, np.frombuffer(layout.header, np.uint8))
            for name, part, array in parts:
                written += write_part(file, layout.offsets[name], specs[name][1], part, array)
            os.fsync(file)
        finally:
            os.close(file)
    faults.point("written parts of", path)
    return written


def finish_parts(unfinished: Path, written: int) -> tuple[str, str]:
    """Give a file its name after all processes have `written` so many bytes of it: (name, hex SHA-256, read from it).

    Raises ModelError if that is not all of it.
    """
    if (size := unfinished.stat().st_size) != written:
        raise ModelError(f"{unfinished}: damaged: {written:,} of its {size:,} bytes were written; save it again")
    with opened(unfinished):  # the library refuses a file that is not as long as its header says
        path = unfinished.with_name(unfinished.name.removesuffix(UNFINISHED))
    sha256 = sha256_file(unfinished)
    unfinished.rename(path)
    faults.point("renamed", path)
    return path.name, sha256


def opened(path: Path) -> Any:
    """The library's reader of a file. Raises ModelError: damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise ModelError(f"{path}: damaged or not a safetensors file ({error}); fetch or copy it again") from None


def readable(path: Path, name: str, tensor: Any) -> Any:
    """A tensor's `get_slice`, after a look at its dtype. Raises ModelError: not floats."""
    if tensor.get_dtype() not in READABLE:
        raise ModelError(f"{path}: {name}: dtype {tensor.get_dtype()} is not supported, only {', '.join(READABLE)}")
    return tensor


def dtype_of(tensor: Any) -> str:
    """The dtype of a tensor in a file, given as its `get_slice`, as numpy calls it; one that is not written here, as
    the file does."""
    code: str = tensor.get_dtype()
    return next((name for name, written in CODES.items() if written == code), code)


def tensor_names(path: Path) -> list[str]:
    """The names of a safetensors file's tensors. Raises ModelError: damaged."""
    with opened(path) as file:
        return list(file.keys())


def read_tensors(path: Path, keep: Callable[[str], bool] = lambda name: True) -> dict[str, Float32]:
    """The tensors of a safetensors file, or those with a name to `keep`, as float32.

    Raises ModelError: damaged, or not floats.
    """
    with opened(path) as file:
        names = [name for name in file.keys() if keep(name)]  # noqa: SIM118 (safe_open is no mapping)
        return {name: WHOLE.read(readable(path, name, file.get_slice(name))) for name in names}
