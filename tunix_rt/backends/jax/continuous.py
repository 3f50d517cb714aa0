"""Rows that are answered together on the devices of one group; requests join and leave them.

On the host: who has which row, and what of the results is whose. The computation is in `programs`. The device has as
few rows and slots as those who are there need, in few sizes, since each is one more compilation.
Legend: R rows on the device, D different prompts, P slots of prompts, C tokens of a portion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tunix_rt.backends import xla
from tunix_rt.backends.interface import Piece, Request
from tunix_rt.backends.jax import programs
from tunix_rt.backends.jax.decoder import Layers, Params
from tunix_rt.backends.jax.programs import PORTION, Carry, bucket, power_of_two
from tunix_rt.backends.jax.rows import Found, Row, pieces_of
from tunix_rt.backends.jax.sampling import Sampling
from tunix_rt.backends.jax.step import Graph
from tunix_rt.backends.prompts import distinct
from tunix_rt.backends.sampling import uniforms
from tunix_rt.batches.encoded import Int32
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.folder import Float32

WATCHED = 4
"""Tokens per row between two synchronisations with the host, where somebody may be watching or waiting to join."""
RESIZE = 4
"""Rows are dropped once there can be this many times fewer, and where some lack, there are this many times more."""
SMALL_CACHE = 128
"""Slots up to which a cache does not grow in stages; nor does it in the last step, to less than twice as many."""


APART = 8
"""Rows from which prompts of other lengths are read apart: fewer take as long together."""


@dataclass(frozen=True, slots=True)
class Model:
    """What stays fixed while the devices of one group answer."""

    graph: Graph
    params: Params
    layers: Layers
    architecture: Architecture
    stop_ids: Int32

    @classmethod
    def of(cls, graph: Graph, params: Params, architecture: Architecture, stop_ids: Sequence[int]) -> Model:
        """`params`: on the devices that answer."""
        return cls(graph, params, programs.separate(graph, params), architecture, np.array(stop_ids, np.int32))


@dataclass(slots=True)
class Continuous:
    """Implements `interface.ContinuousBatch`."""

    model: Model
    size: int
    """Most rows."""
    portion: int = WATCHED
    """Most tokens of a row in a step."""
    _waiting: list[Row] = field(default_factory=list)
    _rows: list[Row | None] = field(default_factory=list)
    """Whose a row of the device is."""
    _carry: Carry | None = None
    _found: list[Found] = field(default_factory=list)

    @property
    def free(self) -> int:
        return self.size - len(self._waiting) - len(self._live)

    @property
    def _live(self) -> list[Row]:
        return [row for row in self._rows if row is not None]

    def add(self, request: Request) -> None:
        if self.free < 1:
            raise ValueError(f"all {self.size} rows are in use")
        room = self.model.architecture.max_positions - len(request.prompt)
        limit = min(request.generation.max_new_tokens, room)
        numbers = uniforms([request.seed], max(limit, 0) + PORTION)[0]
        self._waiting.append(Row(request, limit, numbers))

    def abort(self, index: int) -> None:
        for row in (*self._waiting, *self._live):
            if row.request.index == index:
                row.ended = True
        self._leave()

    def step(self) -> list[Piece]:
        with xla.memory_errors("the number of rows that are answered at once"):
            self.dispatch()
            return self.collect()

    def dispatch(self) -> None:
        """Let the device begin with the next tokens."""
        joining = [row for row in self._waiting if row.limit >= 1]
        for alike in _alike(joining):
            self._join(alike, joining)
        if self._live:
            self._decode()

    def collect(self) -> list[Piece]:
        """Wait for what was dispatched."""
        pieces = [Piece(row.request.index, *_nothing(), "length") for row in self._waiting if row.limit < 1]
        for found in self._found:
            pieces += pieces_of(found, self.model.stop_ids)
        self._waiting, self._found = [], []
        self._leave()
        return pieces

    def _leave(self) -> None:
        self._waiting = [row for row in self._waiting if not row.ended]
        self._rows = [None if row is None or row.ended else row for row in self._rows]
        if not self._live:
            self._rows, self._carry = [], None

    def _join(self, joining: list[Row], all_joining: list[Row]) -> None:
        slots = bucket(max(len(row.request.prompt) for row in joining))
        if self._carry is None:
            capacity = max(slots, self._capacity(all_joining))
            self._rows = _padded(joining, min(power_of_two(len(all_joining)), self.size))
            self._carry = self._read(self._rows, slots, capacity)
            return
        together = [*self._live, *joining]
        places = self._make_room(len(together), max(slots, self._capacity(together)))
        rows = _padded(joining, power_of_two(len(joining)))
        new = self._read(rows, slots, slots)
        for place, row in zip(places, joining, strict=False):
            self._rows[place] = row
        chosen = [*places[: len(joining)], *[len(self._rows)] * (len(rows) - len(joining))]
        self._carry = programs.join(self._carry, new, np.array(chosen, np.int32))

    def _read(self, rows: list[Row | None], slots: int, capacity: int) -> Carry:
        """Read the prompts of `rows`, equal ones once, and choose the first token of each."""
        prompts, places = distinct([row.request.prompt for row in rows if row is not None])
        count = min(power_of_two(len(prompts)), len(rows))
        tokens, lengths = np.zeros((count, slots), np.int32), np.ones(count, np.int32)
        for place, prompt in enumerate(prompts):
            tokens[place, slots - len(prompt) :], lengths[place] = prompt, len(prompt)
        padded = np.array([*places, *[count - 1] * (len(rows) - len(places))], np.int32)
        limits = np.array([0 if row is None else row.limit for row in rows], np.int32)
        sampling, model = _sampling(rows), self.model
        fixed = (model.graph, sampling.kind, _top(rows, model.architecture.vocab_size), capacity, model.params)
        carry: Carry
        carry, chosen = programs.prefill(
            *fixed, tokens, lengths, padded, limits, model.stop_ids, sampling, _uniform(rows, 1)[0]
        )
        self._asked(Found([*rows], chosen, None), 1)
        return carry

    def _make_room(self, rows: int, capacity: int) -> list[int]:
        """See that the device has that many rows and slots; the rows that are free."""
        size = len(self._rows)
        if rows > size:
            size = min(max(power_of_two(rows), size * RESIZE), self.size)
        self._resize(size, capacity)
        return [place for place, row in enumerate(self._rows) if row is None]

    def _decode(self) -> None:
        live = self._live
        fewer = power_of_two(len(live))
        size = len(self._rows) if fewer * RESIZE > len(self._rows) else fewer
        self._resize(size, self._capacity(live))
        rows, model = self._rows, self.model
        sampling = _sampling(rows)
        fixed = (
            model.graph,
            sampling.kind,
            _top(rows, model.architecture.vocab_size),
            model.params,
            model.layers,
            self._carry,
            model.stop_ids,
        )
        self._carry, chosen, count = programs.decode(*fixed, sampling, _uniform(rows, PORTION), np.int32(self.portion))
        self._asked(Found([*rows], chosen, count), self.portion)

    def _asked(self, found: Found, tokens: int) -> None:
        self._found.append(found)
        for row in found.rows:
            if row is not None:
                row.asked += tokens

    def _capacity(self, rows: Sequence[Row]) -> int:
        """Slots for the next portion of `rows`."""
        longest, next_ = max(row.whole for row in rows), max(row.length for row in rows) + 1 + self.portion
        whole, least = bucket(longest), max(bucket(next_), SMALL_CACHE)
        return least if 2 * least <= whole else whole

    def _resize(self, size: int, capacity: int) -> None:
        """Let the device have `size` rows, at least as many as are in use, and at least `capacity` slots."""
        assert self._carry is not None
        capacity = max(capacity, self._carry.slots)
        if size == len(self._rows) and capacity == self._carry.slots:
            return
        kept = sorted(range(len(self._rows)), key=lambda place: self._rows[place] is None)[:size]
        kept = sorted(kept) + [-1] * (size - len(kept))
        self._carry = programs.refit(self._carry, np.array(kept, np.int32), capacity)
        self._rows = [None if place < 0 else self._rows[place] for place in kept]


def _alike(rows: list[Row]) -> list[list[Row]]:
    """The longer and the shorter half, where reading them apart takes far fewer slots; the longer first."""
    if not rows:
        return []
    rows = sorted(rows, key=lambda row: -len(row.request.prompt))
    half = (len(rows) + 1) // 2
    longest, middle = (bucket(len(rows[place].request.prompt)) for place in (0, min(half, len(rows) - 1)))
    return [rows[:half], rows[half:]] if half >= APART and 3 * middle <= 2 * longest else [rows]


def _padded(rows: Sequence[Row], size: int) -> list[Row | None]:
    return [*rows, *[None] * (size - len(rows))]


def _sampling(rows: Iterable[Row | None]) -> Sampling:
    return Sampling.of([None if row is None else row.request.generation for row in rows])


def _top(rows: Iterable[Row | None], vocab_size: int) -> int:
    """How many tokens are named for all rows: a power of two, all or none."""
    most = max(0 if row is None else row.request.top_logprobs for row in rows)
    return min(power_of_two(most), vocab_size) if most else 0


def _uniform(rows: Sequence[Row | None], count: int) -> Float32:
    """Random numbers [count, R] for the next tokens."""
    found = np.zeros((count, len(rows)), np.float32)
    for place, row in enumerate(rows):
        if row is not None:
            numbers = row.numbers[row.asked : row.asked + count]
            found[: len(numbers), place] = numbers
    return found


def _nothing() -> tuple[Int32, Float32]:
    return np.zeros(0, np.int32), np.zeros(0, np.float32)
