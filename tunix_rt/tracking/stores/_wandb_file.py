"""Reads what W&B has recorded of a run on this machine: the files `run-ID.wandb` in its folders.

A file is a header of 7 bytes and a log in LevelDB's format (github.com/google/leveldb, doc/log_format.md) of
`Record`s of the package's own protobuf. Of a file that was cut off, the whole records are read.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADER, BLOCK = 7, 32768
FRAME = struct.Struct("<IHB")
FULL, FIRST, _MIDDLE, LAST = 1, 2, 3, 4
"""Kinds of fragments."""


def rows(folder: Path, run_id: str) -> Iterator[dict[str, Any]]:
    """The rows of a run's history, of all its folders below `folder` in the order of their making.

    Of a value with parts (an image, a table), one part stands for it.
    """
    for file in sorted(folder.glob(f"*run-*-{run_id}/run-{run_id}.wandb")):
        for record in records(file):
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                yield {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}


def records(file: Path) -> Iterator[Any]:
    """The whole records of a file."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made at its import

    for content in _contents(file.read_bytes()):
        yield Record.FromString(content)


def _contents(data: bytes) -> Iterator[bytes]:
    at, content = HEADER, b""
    while at + FRAME.size <= len(data):
        if (left := BLOCK - at % BLOCK) < FRAME.size:
            at += left
            continue
        checksum, length, kind = FRAME.unpack_from(data, at)
        fragment = data[at + FRAME.size : at + FRAME.size + length]
        if len(fragment) < length or zlib.crc32(fragment, zlib.crc32(bytes([kind]))) != checksum:
            return
        at += FRAME.size + length
        content = fragment if kind in (FULL, FIRST) else content + fragment
        if kind in (FULL, LAST):
            yield content
