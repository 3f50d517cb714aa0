"""All traces of a split → chunks of token ids and weights, in order, on all cores where there are many."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

from boltons.iterutils import chunked_iter

from tunix_rt.batches.chunks import Chunk, Lines, encode_chunk, kept_chunk, read_chunk
from tunix_rt.batches.encoder import Encoder, Encoding
from tunix_rt.config.choices import SplitName
from tunix_rt.errors import MachineError
from tunix_rt.machine import usable_cores

MANY = 20_000
"""Traces from which further processes pay (each takes seconds to start), and chunks are kept on disk."""
CHUNK = 1024
AHEAD = 4
"""Chunks per process that are under way, so that memory stays bounded."""
_own: list[Encoder] = []
"""The encoder of a further process."""


def encode_all(
    encoder: Encoder, encoding: Encoding, split: SplitName, lines: Iterable[tuple[bytes, str]], count: int, folder: Path
) -> Iterator[Chunk]:
    """The `count` spooled traces of a split in chunks, in order.

    Those of many traces are kept in `folder`, where the same call finds them after an interruption.
    """
    chunks = chunked_iter(lines, CHUNK)
    if count < MANY:
        yield from (encode_chunk(encoder, split, chunk) for chunk in chunks)
    elif usable_cores() < 2 or multiprocessing.current_process().daemon:
        yield from (_read(kept_chunk(encoder, split, chunk, folder)) for chunk in chunks)
    else:
        yield from _together(encoding, split, chunks, folder)


def _together(encoding: Encoding, split: SplitName, chunks: Iterable[Lines], folder: Path) -> Iterator[Chunk]:
    processes = usable_cores()
    context, waiting = multiprocessing.get_context("spawn"), deque[Future[Path]]()
    with ProcessPoolExecutor(processes, context, _begin, (encoding,)) as pool:
        for chunk in chunks:
            waiting.append(pool.submit(_kept, split, chunk, folder))
            if len(waiting) > processes * AHEAD:
                yield _read(waiting.popleft().result())
        while waiting:
            yield _read(waiting.popleft().result())


def _begin(encoding: Encoding) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asked for the work stops it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _own.append(Encoder(encoding))


def _end_with_parent() -> None:
    """A killed process cannot stop those that it started: they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _kept(split: SplitName, lines: Lines, folder: Path) -> Path:
    return kept_chunk(_own[0], split, lines, folder)


def _read(path: Path) -> Chunk:
    chunk = read_chunk(path)
    if chunk is None:
        raise MachineError(f"{path}: not what was written a moment ago; is the disk damaged?")
    return chunk
