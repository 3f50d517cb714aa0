"""A batch that prompts join and leave while others are decoded, one token of every row at a time.

Rows in use are beside one another, from 0 on. A row that leaves keeps its keys and values until the place is needed: a
prompt that begins as one that was read copies that part, be it a common instruction or the conversation so far.
Legend: n rows in use, R rows that there are, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tunix_rt.backends.interface import Piece, Request
from tunix_rt.backends.torch import devices
from tunix_rt.backends.torch.cache import Cache, Decoding, Reading, runs_of
from tunix_rt.backends.torch.copies import on_device
from tunix_rt.backends.torch.decoder import hidden_states
from tunix_rt.backends.torch.prefixes import Prefixes
from tunix_rt.backends.torch.prepared import Prepared
from tunix_rt.backends.torch.products import DTYPES, rounded
from tunix_rt.backends.torch.rows import Row
from tunix_rt.backends.torch.sampling import choose
from tunix_rt.batches.encoded import Int32
from tunix_rt.models.folder import Float32

READ_AT_ONCE = 2048
"""Tokens of prompts in one pass, unless a single prompt has more: what they need of memory, beside the cache."""
AHEAD = 128
"""New tokens for which a row gets memory when it joins: with more it grows, which copies."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What is read of a prompt whose row has its first `begin` positions."""

    row: int
    begin: int
    prompt: Int32


class Continuous:
    """Implements `interface.ContinuousBatch`."""

    def __init__(
        self, prepared: Prepared, num_rows: int, stop_ids: Sequence[int], remedy: str, piece_length: int = 1
    ) -> None:
        """`remedy`: what to do where memory is short. `piece_length`: tokens of a piece of an unfinished row."""
        model = prepared.model
        self._remedy = remedy
        self._prepared, self._stop_ids, self._piece_length = prepared, frozenset(stop_ids), piece_length
        with torch.inference_mode():
            dtype = rounded(torch.empty(0, device=model.device), DTYPES[model.precision]).dtype
            self._cache = Cache(model.architecture, num_rows, dtype, model.device)
        self._prefixes = Prefixes(num_rows)
        self._num_rows = num_rows
        self._waiting: list[Row] = []
        self._rows: list[Row] = []

    @property
    def free(self) -> int:
        return self._num_rows - len(self._waiting) - len(self._rows)

    @property
    def in_use(self) -> int:
        """Requests that have not ended."""
        return self._num_rows - self.free

    def add(self, request: Request) -> None:
        if self.free < 1:
            raise ValueError(f"all {self._num_rows} rows are in use")
        self._waiting.append(Row.of(request, self._prepared.model.architecture.max_positions))

    @torch.inference_mode()
    def abort(self, index: int) -> None:
        self._waiting = [row for row in self._waiting if row.request.index != index]
        for place in [place for place, row in enumerate(self._rows) if row.request.index == index]:
            self._leave(place)

    @torch.inference_mode()
    def step(self) -> list[Piece]:
        with devices.memory_guard(self._remedy):
            return self._step()

    def _step(self) -> list[Piece]:
        full = [row for row in self._waiting if row.finish_reason is not None]
        joining = [row for row in self._waiting if row.finish_reason is None]
        self._waiting = []
        if joining:
            made = self._take(joining, self._join(joining))
        else:
            made = self._take(self._rows, self._decode()) if self._rows else []
        for place in reversed([place for place, row in enumerate(self._rows) if row.finish_reason is not None]):
            self._leave(place)
        return [row.piece() for row in full] + made

    def _join(self, rows: list[Row]) -> Tensor:
        """Read their prompts; returns the logits of what follows, [rows, V]."""
        self._reserve(max(len(row.request.prompt) + min(row.room, AHEAD) for row in rows))
        first = len(self._rows)
        logits: dict[int, Tensor] = {}
        for place in range(first, first + len(rows)):
            self._exchange(self._prefixes.oldest(place), place)
        self._rows += rows
        unread = {place: self._rows[place].request.prompt for place in range(first, len(self._rows))}
        while unread:
            for group in _groups(self._next_parts(unread)):
                logits |= zip((part.row for part in group), self._read(group), strict=True)
        return torch.stack([logits[place] for place in range(first, len(self._rows))])

    def _next_parts(self, unread: dict[int, Int32]) -> list[_Part]:
        """What can be read of these prompts now; removes them. Those that begin as one of them wait for it."""
        parts = []
        for place, prompt in list(unread.items()):
            found = self._prefixes.find(prompt)
            if found is not None:
                source, length = found
                if source != place:
                    self._cache.copy(source, place, length)
                self._prefixes.begin(place, prompt)
                parts.append(_Part(place, length, prompt))
                del unread[place]
        self._prefixes.end()
        return parts

    def _read(self, parts: list[_Part]) -> Tensor:
        """Read prompts; returns the logits after their last tokens, [parts, V]."""
        model = self._prepared.model
        tokens = np.concatenate([part.prompt[part.begin :] for part in parts]).astype(np.int64)
        positions = np.concatenate([np.arange(part.begin, len(part.prompt)) for part in parts])
        ends = np.cumsum([len(part.prompt) - part.begin for part in parts])
        reading = Reading(self._cache, runs_of([(part.row, part.begin, len(part.prompt)) for part in parts]))
        inputs, places = (on_device(x[None], model.device) for x in (tokens, positions))
        hidden = hidden_states(model, inputs, places, reading)
        return self._prepared.logits(hidden[0, on_device(ends - 1, model.device)])

    def _decode(self) -> Tensor:
        """Read the last token of each row; returns the logits of what follows, [n, V]."""
        model = self._prepared.model
        tokens = np.array([row.last for row in self._rows], np.int64)
        positions = self._prefixes.lengths[: len(tokens)].copy()
        self._reserve(int(positions.max()) + 1)
        self._prefixes.extend(tokens)
        inputs, places = (on_device(x[:, None], model.device) for x in (tokens, positions))
        hidden = hidden_states(model, inputs, places, Decoding(self._cache, positions))
        return self._prepared.logits(hidden[:, -1])

    def _take(self, rows: list[Row], logits: Tensor) -> list[Piece]:
        """Choose each row's next token from `logits` [rows, V]; the host waits for the device once."""
        uniform = on_device(np.array([row.draw for row in rows], np.float32), logits.device)
        chosen = choose(logits, uniform, [row.settings for row in rows])
        total = logits.logsumexp(-1)
        values = logits.gather(-1, chosen[:, None])[:, 0] - total
        tokens, logprobs = torch.stack((chosen.double(), values.double())).tolist()
        tops = _tops(rows, logits, total)
        for row, token, logprob, top in zip(rows, tokens, logprobs, tops, strict=True):
            row.add(int(token), logprob, self._stop_ids, top)
        return [row.piece() for row in rows if row.finish_reason or len(row.ids) == self._piece_length]

    def _leave(self, place: int) -> None:
        """The last row takes the place of one that has ended."""
        last = len(self._rows) - 1
        self._prefixes.left(place)
        self._exchange(place, last)
        self._rows[place] = self._rows[last]
        self._rows.pop()

    def _reserve(self, length: int) -> None:
        self._cache.reserve(length)
        self._prefixes.reserve(length)

    def _exchange(self, one: int, other: int) -> None:
        if one != other:
            self._cache.exchange(one, other, int(self._prefixes.lengths[[one, other]].max()))
            self._prefixes.exchange(one, other)


def _groups(parts: list[_Part]) -> Iterator[list[_Part]]:
    """Consecutive parts that are read in one pass."""
    group: list[_Part] = []
    size = 0
    for part in parts:
        size += len(part.prompt) - part.begin
        if group and size > READ_AT_ONCE:
            yield group
            group, size = [], len(part.prompt) - part.begin
        group.append(part)
    if group:
        yield group


def _tops(rows: list[Row], logits: Tensor, total: Tensor) -> list[tuple[Int32, Float32] | None]:
    """For each row the likeliest tokens and their log-probabilities, if it asked for them."""
    counts = [min(row.request.top_logprobs, logits.shape[-1]) for row in rows]
    if not any(counts):
        return [None] * len(rows)
    values, ids = logits.topk(max(counts))
    logprobs = (values - total[:, None]).cpu().numpy()
    likeliest = ids.int().cpu().numpy()
    return [(likeliest[i, :n], logprobs[i, :n]) if n else None for i, n in enumerate(counts)]
