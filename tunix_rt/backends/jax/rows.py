"""The requests of a batch in rows of the device, and what of its results is whose. No computation.

Legend: R rows on the device, C tokens of a portion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np

from tunix_rt.backends.interface import Piece, Request, Top
from tunix_rt.backends.jax.sampling import Chosen
from tunix_rt.batches.encoded import Int32
from tunix_rt.models.folder import Float32


@dataclass(eq=False, slots=True)
class Row:
    """A request in a row of the device."""

    request: Request
    limit: int
    """New tokens that it may get."""
    numbers: Float32
    """Uniform numbers of its tokens, and of those that are dropped behind its end."""
    asked: int = 0
    """Tokens that the device has been asked for."""
    made: int = 0
    """Tokens that pieces have returned."""
    ended: bool = False

    @property
    def length(self) -> int:
        """Positions that it takes of the cache, with those asked for."""
        return len(self.request.prompt) + self.asked

    @property
    def whole(self) -> int:
        """Positions that it may come to take."""
        return len(self.request.prompt) + self.limit


@dataclass(frozen=True, slots=True)
class Found:
    """What the device makes, or has made, of its rows."""

    rows: list[Row | None]
    chosen: Chosen
    """With a first axis C, unless it is the first token."""
    count: jax.Array | None
    """How many of the C have been made; None: the first token."""


def pieces_of(found: Found, stop_ids: Int32) -> Iterator[Piece]:
    """What of it was not yet said; rows whose last token is among it end."""
    arrays = [np.asarray(array) for array in found.chosen]
    made = [array[None] if found.count is None else array[: int(found.count)] for array in arrays]
    for place, row in enumerate(found.rows):
        if row is not None and not row.ended:
            piece = _piece(row, stop_ids, *(array[:, place] for array in made))
            row.made += len(piece.ids)
            row.ended = piece.finish_reason is not None
            yield piece


def _piece(row: Row, stop_ids: Int32, ids: Int32, logprobs: Float32, top_ids: Int32, top_logprobs: Float32) -> Piece:
    """Cut a row's new tokens at its stop token or its limit."""
    room, index, named = row.limit - row.made, row.request.index, row.request.top_logprobs
    stops = np.flatnonzero(np.isin(ids, stop_ids))
    stopped = bool(stops.size) and int(stops[0]) < room
    end = int(stops[0]) if stopped else min(room, len(ids))
    top = Top(top_ids[:end, :named], top_logprobs[:end, :named]) if named else None
    if stopped:
        return Piece(index, ids[:end], logprobs[:end], "stop", int(ids[end]), float(logprobs[end]), top)
    return Piece(index, ids[:end], logprobs[:end], "length" if room <= len(ids) else None, top=top)
