"""Traces → token ids and weights under the declared switches, on all cores where there are many.

What cannot be learned comes back with its reason: whether that is an error is for the caller's switches to say.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from boltons.iterutils import chunked_iter

from tunix_rt.batches.encode import encode
from tunix_rt.batches.encoded import Encoded
from tunix_rt.config.dataset import DatasetConfig
from tunix_rt.config.format import FormatConfig
from tunix_rt.errors import DataError, ModelError
from tunix_rt.machine import usable_cores
from tunix_rt.models.tokenizer import Tokenizer
from tunix_rt.traces.calls import rewritten
from tunix_rt.traces.format import Part, formatter
from tunix_rt.traces.trace import Trace

MANY = 20_000
"""Traces from which further processes pay: each takes seconds to start."""
CHUNK = 256
CUT = "overlong_truncated"
REWRITTEN = "tool calls whose arguments the chat template writes otherwise"
AHEAD = 8
"""Chunks per process that are under way, so that memory stays bounded."""


@dataclass(frozen=True, slots=True)
class Left:
    """Why a trace is not learned; `kind` names its switch, `dataset.on_<kind>`."""

    kind: Literal["invalid", "overlong", "no_target"]
    reason: str


@dataclass(frozen=True, slots=True)
class Encoding:
    """How traces are encoded; plain data, which another process can be given."""

    model: Path
    """The folder with the tokenizer."""
    format: FormatConfig
    dataset: DatasetConfig
    limit: int
    """Most tokens of a trace."""


class Encoder:
    """Encodes traces one by one."""

    def __init__(self, encoding: Encoding) -> None:
        """Raises ModelError, ConfigError, DataError: what `formatter` raises."""
        self._encoding = encoding
        self.tokenizer = Tokenizer.load(encoding.model)
        self.writer = formatter(encoding.format, self.tokenizer)

    def encode(self, trace: Trace) -> tuple[Encoded | Left, tuple[str, ...]]:
        """The numbers of a trace, or why it has none; and what was changed in it, once for each time: `CUT`, …"""
        dataset, limit = self._encoding.dataset, self._encoding.limit
        try:
            parts = self.writer.parts(trace, dataset.steps, dataset.loss_weights.previous_turns > 0)
            encoded = encode(parts, self.tokenizer, dataset.loss_weights)
        except (DataError, ModelError) as error:
            return Left("invalid", str(error)), ()
        cut = len(encoded.ids) > limit
        if cut and dataset.on_overlong != "truncate":
            most = f"at most {limit:,} fit (dataset.max_length, model positions)"
            return Left("overlong", f"{len(encoded.ids):,} tokens, {most}"), ()
        encoded = Encoded(encoded.ids[:limit], encoded.weights[:limit])
        if len(encoded.ids) >= 2 and bool(np.any(encoded.weights[1:] > 0)):
            return encoded, (*(CUT,) * cut, *(REWRITTEN,) * _rewritten(trace, parts))
        return Left("no_target", "no token of it is a target (dataset.loss_weights, truncation)"), ()


def _rewritten(trace: Trace, parts: Sequence[Part]) -> int:
    said = trace.conversation if trace.completion is None else (*trace.conversation, trace.completion)
    return rewritten(said, "".join(part.text for part in parts))


Outcome = tuple[Trace, Encoded | Left, tuple[str, ...]]
_own: list[Encoder] = []
"""The encoder of a further process."""


def encode_all(encoder: Encoder, encoding: Encoding, traces: Iterable[Trace], count: int) -> Iterator[Outcome]:
    """Each of `count` traces with what `Encoder.encode` gives, in order; by several processes if there are many."""
    processes = usable_cores()
    if count < MANY or processes < 2 or multiprocessing.current_process().daemon:
        yield from ((trace, *encoder.encode(trace)) for trace in traces)
        return
    context, waiting = multiprocessing.get_context("spawn"), deque[Future[list[Outcome]]]()
    with ProcessPoolExecutor(processes, context, _begin, (encoding,)) as pool:
        for chunk in chunked_iter(traces, CHUNK):
            waiting.append(pool.submit(_encode_chunk, chunk))
            if len(waiting) > processes * AHEAD:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _begin(encoding: Encoding) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asked for the work stops it
    _own.append(Encoder(encoding))


def _encode_chunk(traces: Sequence[Trace]) -> list[Outcome]:
    return [(trace, *_own[0].encode(trace)) for trace in traces]
