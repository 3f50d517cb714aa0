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
from tunix_rt.batches.encoded import Encoded
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
class Numbers:
    """Token ids and weights of some traces, one after the other, each as often as an epoch has it."""

    tokens: bytearray = field(default_factory=bytearray)
    """int32."""
    weights: bytearray = field(default_factory=bytearray)
    """float32, of the same length."""
    lengths: list[int] = field(default_factory=list)
    """Number of tokens of each."""

    def add(self, encoded: Encoded, times: int) -> None:
        """Append a trace."""
        self.tokens += encoded.ids.astype("<i4").tobytes() * times
        self.weights += encoded.weights.astype("<f4").tobytes() * times
        self.lengths += [len(encoded.ids)] * times


@dataclass(slots=True)
class Chunk:
    """What became of some traces."""

    traces: bytearray = field(default_factory=bytearray)
    """A JSON line for each that is kept."""
    names: list[str] = field(default_factory=list)
    """The ids of those in `learned`."""
    learned: Numbers = field(default_factory=Numbers)
    rejected: Numbers = field(default_factory=Numbers)
    """Of pairs the worse completions; otherwise empty."""
    counts: Counter[str] = field(default_factory=Counter)
    """`count`, `tokens`, `target_tokens`, of pairs `rejected_tokens`, of those that are kept."""
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
    """Add the numbers of a trace, or of a pair; False if it is left out."""
    found, changes = encoder.encode_pair(trace) if encoder.pairs else encoder.encode(trace)
    if isinstance(found, Left):
        chunk.dropped[found.kind] += 1
        chunk.left.append((where, found.kind, f"{where}: {found.reason}"))
        return False
    chunk.dropped[CUT] += changes.count(CUT)
    chunk.noted.update(change for change in changes if change != CUT)
    times = _times(trace, split, encoder.dataset)
    chunk.dropped["weight"] += not times
    learned, *rejected = (found,) if isinstance(found, Encoded) else found
    chunk.names += [trace.id] * times
    chunk.learned.add(learned, times)
    targets = int(np.count_nonzero(learned.weights[1:] > 0))
    chunk.counts.update(tokens=times * len(learned.ids), target_tokens=times * targets)
    for worse in rejected:
        chunk.rejected.add(worse, times)
        chunk.counts["rejected_tokens"] += times * len(worse.ids)
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
    numbers = (chunk.learned, chunk.rejected)
    blobs = [chunk.traces, *(blob for part in numbers for blob in (part.tokens, part.weights))]
    rest = [chunk.names, chunk.counts, chunk.dropped, chunk.noted, chunk.left, chunk.questions]
    sizes, lengths = [len(blob) for blob in blobs], [part.lengths for part in numbers]
    head = to_json([sizes, lengths, sorted(chunk.answers.items()), *rest]).encode()
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
    sizes, lengths, answers, names, counts, dropped, noted, left, questions = json.loads(head)
    traces, *blobs = (bytearray(rest[end - size : end]) for size, end in zip(sizes, accumulate(sizes), strict=True))
    return Chunk(
        traces,
        names,
        Numbers(blobs[0], blobs[1], lengths[0]),
        Numbers(blobs[2], blobs[3], lengths[1]),
        counts=Counter(counts),
        dropped=Counter(dropped),
        noted=Counter(noted),
        left=[(where, kind, reason) for where, kind, reason in left],
        answers=Counter({int(length): int(count) for length, count in answers}),
        questions=questions,
    )
