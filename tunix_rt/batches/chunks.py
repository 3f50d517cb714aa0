"""Some traces in a row → their lines, token ids and weights in one piece, which is kept on disk until all are done.

A piece is named by what it was made of, so an interrupted `prepare` finds those that are whole, and takes no other.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import numpy as np

from tunix_rt.batches.encode import completion_length
from tunix_rt.batches.encoder import CUT, Encoder, Left
from tunix_rt.config.choices import SplitName
from tunix_rt.config.dataset import DatasetConfig
from tunix_rt.errors import DataError
from tunix_rt.files import atomic_writer, sha256_bytes, to_json
from tunix_rt.traces.dataset import times_seen
from tunix_rt.traces.spool import read_line
from tunix_rt.traces.trace import Trace

ENCODED: tuple[SplitName, ...] = ("train", "validation")
"""Splits whose completions are tokenised too: `test` is only used for prompts."""
ASKED: tuple[SplitName, ...] = ("validation", "test")
"""Splits whose prompts a model may answer (`generation.split`)."""
Lines = Sequence[tuple[bytes, str]]
"""Spooled lines, each with the id of its trace."""


@dataclass(slots=True)
class Chunk:
    """What became of some traces."""

    traces: bytearray = field(default_factory=bytearray)
    """A JSON line for each that is kept."""
    tokens: bytearray = field(default_factory=bytearray)
    """int32, one trace after the other, each as often as an epoch has it."""
    weights: bytearray = field(default_factory=bytearray)
    """float32, of the same length."""
    names: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    """Number of tokens of each trace in `tokens`; `names` are their ids."""
    counts: Counter[str] = field(default_factory=Counter)
    """`count`, `tokens`, `target_tokens`, of those that are kept."""
    dropped: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    left: list[tuple[str, str, str]] = field(default_factory=list)
    """(place, kind, reason) of those that cannot be learned."""
    answers: Counter[int] = field(default_factory=Counter)
    """Of a split that is asked: references by number of tokens, the end token included."""
    questions: list[str] = field(default_factory=list)
    """Of such a split: id, prompt and final answer of each as JSON."""


def encode_chunk(encoder: Encoder, split: SplitName, lines: Lines) -> Chunk:
    """The traces of a split in one piece."""
    chunk, dataset = Chunk(), encoder.dataset
    for line, identity in lines:
        where, trace = read_line(line, identity)
        if split not in ENCODED or _encode(chunk, encoder, split, where, trace):
            chunk.traces += f"{to_json(trace.to_json())}\n".encode()
            chunk.counts["count"] += 1
            if split in ASKED:
                chunk.questions.append(to_json([trace.id, trace.asked, trace.final_answer]))
                with suppress(DataError):
                    parts = encoder.writer.parts(trace, dataset.steps)
                    chunk.answers[completion_length(parts, encoder.tokenizer)] += 1
    return chunk


def _encode(chunk: Chunk, encoder: Encoder, split: SplitName, where: str, trace: Trace) -> bool:
    """Add the numbers of a trace; False if it is left out."""
    found, changes = encoder.encode(trace)
    if isinstance(found, Left):
        chunk.dropped[found.kind] += 1
        chunk.left.append((where, found.kind, f"{where}: {found.reason}"))
        return False
    chunk.dropped[CUT] += changes.count(CUT)
    chunk.noted.update(change for change in changes if change != CUT)
    times = _times(trace, split, encoder.dataset)
    chunk.dropped["weight"] += not times
    chunk.tokens += found.ids.astype("<i4").tobytes() * times
    chunk.weights += found.weights.astype("<f4").tobytes() * times
    chunk.names += [trace.id] * times
    chunk.lengths += [len(found.ids)] * times
    targets = int(np.count_nonzero(found.weights[1:] > 0))
    chunk.counts.update(tokens=times * len(found.ids), target_tokens=times * targets)
    return times > 0


def _times(trace: Trace, split: SplitName, dataset: DatasetConfig) -> int:
    return times_seen(trace, dataset) if split == "train" else 1


def kept_chunk(encoder: Encoder, split: SplitName, lines: Lines, folder: Path) -> Path:
    """The file of `encode_chunk`: found, or written."""
    texts = [part for line, identity in lines for part in (line, identity.encode())]
    path = folder / sha256_bytes(b"\n".join([encoder.digest.encode(), split.encode(), *texts]))[:32]
    if read_chunk(path) is None:
        _write(path, encode_chunk(encoder, split, lines))
    return path


def _write(path: Path, chunk: Chunk) -> None:
    blobs = (chunk.traces, chunk.tokens, chunk.weights)
    rest = [chunk.names, chunk.lengths, chunk.counts, chunk.dropped, chunk.noted, chunk.left, chunk.questions]
    head = to_json([[len(blob) for blob in blobs], sorted(chunk.answers.items()), *rest]).encode()
    body = b"\n".join([head, b"".join(blobs)])
    with atomic_writer(path) as file:
        file.write(sha256_bytes(body).encode() + b"\n" + body)


def read_chunk(path: Path) -> Chunk | None:
    """The chunk of a file; None if there is none, or it is damaged."""
    if not path.is_file():
        return None
    sha256, _, body = path.read_bytes().partition(b"\n")
    if sha256_bytes(body).encode() != sha256:
        return None
    head, _, rest = body.partition(b"\n")
    sizes, answers, names, lengths, counts, dropped, noted, left, questions = json.loads(head)
    traces, tokens, weights = (
        bytearray(rest[end - size : end]) for size, end in zip(sizes, accumulate(sizes), strict=True)
    )
    return Chunk(
        traces,
        tokens,
        weights,
        names,
        lengths,
        counts=Counter(counts),
        dropped=Counter(dropped),
        noted=Counter(noted),
        left=[(where, kind, reason) for where, kind, reason in left],
        answers=Counter({int(length): int(count) for length, count in answers}),
        questions=questions,
    )
