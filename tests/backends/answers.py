"""Pieces of answers, put together."""

from __future__ import annotations

from collections.abc import Iterable

from tunix_rt.backends.interface import ContinuousBatch, Piece

Answer = tuple[list[int], list[float], str | None]
"""Ids, log-probabilities, and how it ended."""


def collected(pieces: Iterable[Piece]) -> dict[int, Answer]:
    found: dict[int, Answer] = {}
    for piece in pieces:
        ids, logprobs, reason = found.get(piece.index, ([], [], None))
        assert reason is None, "a piece after the last one"
        found[piece.index] = (ids + piece.ids.tolist(), logprobs + piece.logprobs.tolist(), piece.finish_reason)
    return found


def drained(batch: ContinuousBatch) -> list[Piece]:
    """All pieces until nothing is left to answer."""
    found: list[Piece] = []
    while pieces := batch.step():
        found += pieces
    return found
