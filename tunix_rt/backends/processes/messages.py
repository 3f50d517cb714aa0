"""Messages between the processes of a job as bytes: JSON, and behind it the bytes of the arrays. Never pickle.

Only plain values, paths, numpy arrays and the records of `interface.Backend` can be said, each record by its name.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

from tunix_rt.backends.interface import Backend
from tunix_rt.backends.processes.world import World
from tunix_rt.config.execution import BackendConfig, HardwareConfig

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Held:
    """Something that every process holds its own of, a backend or a state, by the number that all know it by."""

    number: int


def _records(kind: Any) -> Iterator[Any]:
    """The dataclasses in a type, and in those of their fields."""
    if isinstance(kind, type) and is_dataclass(kind):
        yield kind
        inside: Iterable[Any] = get_type_hints(kind).values()
    else:
        inside = get_args(kind)
    for part in inside:
        yield from _records(part)


METHODS = (Backend.load, Backend.restore, Backend.train_step, Backend.logprobs, Backend.generate, Backend.save)
"""Those that every process calls; what they take and return is sent."""
RECORDS: dict[str, Any] = {
    record.__name__: record
    for kind in (BackendConfig, HardwareConfig, Held, World, *(t for m in METHODS for t in get_type_hints(m).values()))
    for record in _records(kind)
}
KIND = "kind of value"
"""Marks a JSON object that stands for a value that JSON has not."""
LENGTH = struct.Struct("!Q")


def pack(message: Mapping[str, Any]) -> bytes:
    """A message as bytes; relative paths become absolute. Raises TypeError for a value that cannot be said."""
    arrays: list[Array] = []
    head = json.dumps(_encode(dict(message), arrays)).encode()
    return b"".join([LENGTH.pack(len(head)), head, *(array.tobytes() for array in arrays)])


def unpack(data: bytes) -> dict[str, Any]:
    """What `pack` was given; arrays can be written to. Raises KeyError for a record that is none of `RECORDS`."""
    (length,) = LENGTH.unpack_from(data)
    message: dict[str, Any] = _Decoder(data, LENGTH.size + length).value(json.loads(data[LENGTH.size :][:length]))
    return message


def _encode(value: Any, arrays: list[Array]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return {KIND: "path", "path": str(value.absolute())}
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {KIND: "array", "dtype": str(value.dtype), "shape": value.shape}
    if isinstance(value, list | tuple):
        items = [_encode(item, arrays) for item in value]
        return items if isinstance(value, list) else {KIND: "tuple", "items": items}
    if isinstance(value, dict):
        return {KIND: "dict", "items": [[_encode(key, arrays), _encode(item, arrays)] for key, item in value.items()]}
    if RECORDS.get(type(value).__name__) is type(value):
        named = {field.name: _encode(getattr(value, field.name), arrays) for field in fields(value)}
        return {KIND: type(value).__name__, "fields": named}
    raise TypeError(f"{type(value).__name__} cannot be sent to another process")


@dataclass(slots=True)
class _Decoder:
    """The arrays of a message, from byte `at` on, in the order in which its values are read."""

    data: bytes
    at: int

    def value(self, encoded: Any) -> Any:
        if isinstance(encoded, list):
            return [self.value(item) for item in encoded]
        if not isinstance(encoded, dict):
            return encoded
        match kind := encoded[KIND]:
            case "path":
                return Path(encoded["path"])
            case "array":
                return self._array(np.dtype(encoded["dtype"]), encoded["shape"])
            case "tuple":
                return tuple(self.value(item) for item in encoded["items"])
            case "dict":
                return {self.value(key): self.value(item) for key, item in encoded["items"]}
        return RECORDS[kind](**{name: self.value(item) for name, item in encoded["fields"].items()})

    def _array(self, dtype: np.dtype[Any], shape: list[int]) -> Array:
        count = int(np.prod(shape, dtype=np.int64))
        begin, self.at = self.at, self.at + count * dtype.itemsize
        return np.frombuffer(self.data, dtype, count, begin).reshape(shape).copy()
