"""How likely given texts are under a model, token by token, and what would have been likelier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunix_rt.backends.interface import Backend, State, Top
from tunix_rt.batches.batch import Batch
from tunix_rt.batches.encoded import Int32
from tunix_rt.models.folder import Float32

SHORTEST = 16
"""Positions. Shapes are powers of two from here on: each is compiled once."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One text of N tokens."""

    logprobs: Float32
    """[N - 1] natural log-probabilities of the second token, the third …"""
    top: Top | None
    """The likeliest tokens in their places, [N - 1, k]; None if nobody asked for them."""


def score(backend: Backend, state: State, texts: Sequence[Int32], top: int) -> list[Scored]:
    """`texts`: int32 [N] each, from 1 token to the model's positions. Raises OutOfMemory."""
    found = backend.fetch(backend.logprobs(state, _batch(texts), top=top))
    return [_of_row(found, row, len(text) - 1, top) for row, text in enumerate(texts)]


def _of_row(found: dict[str, np.ndarray], row: int, length: int, top: int) -> Scored:
    likeliest = Top(found["top_ids"][row, :length], found["top_logprobs"][row, :length]) if top else None
    return Scored(found["logprobs"][row, :length], likeliest)


def _batch(texts: Sequence[Int32]) -> Batch:
    longest = max(map(len, texts))
    shape = 1 << (len(texts) - 1).bit_length(), max(1 << (longest - 1).bit_length(), SHORTEST)
    tokens, targets, positions, segments = (np.zeros(shape, np.int32) for _ in range(4))
    weights = np.zeros(shape, np.float32)
    for row, text in enumerate(texts):
        tokens[row, : len(text)], targets[row, : len(text) - 1] = text, text[1:]
        positions[row, : len(text)], segments[row, : len(text)] = np.arange(len(text)), 1
        weights[row, : len(text) - 1] = 1
    return Batch(tokens, targets, positions, segments, weights, 1.0)
