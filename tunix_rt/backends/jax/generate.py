"""Answering the prompts of one call, on any number of groups of devices.

A row's result depends only on its prompt and seed: padding is masked, and its random numbers come from the host.
Equal prompts are read once where they are read together. A row whose prompt has been answered takes the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunix_rt.backends.interface import Piece, Request
from tunix_rt.backends.jax.continuous import Continuous, Model
from tunix_rt.backends.jax.decoder import Params
from tunix_rt.backends.jax.programs import PORTION
from tunix_rt.backends.jax.step import Graph
from tunix_rt.backends.prompts import first_equals
from tunix_rt.batches.encoded import Int32
from tunix_rt.config.results import GenerationConfig
from tunix_rt.models.families.architecture import Architecture

SINGLE_PORTION = 8
"""Tokens per synchronisation with the host of a single row, which somebody may be watching."""
REFILL = 4
"""The next prompts are read once this part of the rows (1/4) is free: reading few at a time takes as long."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of `Backend.generate`, on any number of devices."""

    graph: Graph
    architecture: Architecture
    stop_ids: tuple[int, ...]
    prompts: Sequence[Int32]
    generation: GenerationConfig
    seeds: Sequence[int]

    def request(self, index: int) -> Request:
        """The prompt `index`."""
        return Request(index, self.prompts[index], self.generation, self.seeds[index])


Pieces = Iterator[Piece | None]
"""None: work has been dispatched whose result is waited for next."""


def answering_order(call: Call) -> list[int]:
    """Prompts of similar length together, the longest first, and equal ones next to each other."""
    firsts = first_equals(call.prompts)
    return sorted(range(len(call.prompts)), key=lambda index: (-len(call.prompts[index]), firsts[index]))


def generate(call: Call, params: Params, order: Sequence[int]) -> Pieces:
    """Answer the prompts `order`; see `Backend.generate`. `params`: on the devices that answer."""
    if not order:
        return
    size, waiting = call.generation.batch_size, deque(order)
    model = Model.of(call.graph, params, call.architecture, call.stop_ids)
    rows = Continuous(model, size, SINGLE_PORTION if min(size, len(order)) == 1 else PORTION)
    while waiting or rows.free < size:
        if rows.free * REFILL >= size:
            for _ in range(min(rows.free, len(waiting))):
                rows.add(call.request(waiting.popleft()))
        rows.dispatch()
        yield None
        yield from rows.collect()


def together(groups: Sequence[Pieces]) -> Iterator[Piece]:
    """The pieces of several devices: each dispatches its next portion before the next result is waited for."""
    waiting = deque(groups)
    while waiting:
        pieces = waiting.popleft()
        for piece in pieces:
            if piece is None:
                waiting.append(pieces)
                break
            yield piece
