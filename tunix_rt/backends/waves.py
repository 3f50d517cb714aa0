"""A continuous batch over `generate`, for backends without one of their own: who joins while others are answered waits.

Requests with the same settings are answered together, in waves. Who asks for the likeliest tokens in the place of each
costs a pass over the text so far for each piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tunix_rt.backends.interface import Backend, Piece, Request, State, Top
from tunix_rt.backends.scoring import score
from tunix_rt.batches.encoded import Int32
from tunix_rt.errors import RunError


class Waves:
    """Implements `interface.ContinuousBatch`."""

    def __init__(self, backend: Backend, state: State, rows: int) -> None:
        self._backend, self._state, self._rows = backend, state, rows
        self._waiting: list[Request] = []
        self._wave: dict[int, Request] = {}
        self._texts: dict[int, Int32] = {}
        self._pieces: Iterator[Piece] = iter(())

    @property
    def free(self) -> int:
        return self._rows - len(self._waiting) - len(self._wave)

    def add(self, request: Request) -> None:
        if self.free < 1:
            raise ValueError(f"all {self._rows} rows are in use")
        self._waiting.append(request)

    def abort(self, index: int) -> None:
        self._waiting = [request for request in self._waiting if request.index != index]
        self._wave = {place: request for place, request in self._wave.items() if request.index != index}

    def step(self) -> list[Piece]:
        if not self._wave:
            self._begin()
        for piece in self._pieces:
            if (request := self._wave.get(piece.index)) is not None:
                if piece.finish_reason is not None:
                    del self._wave[piece.index]
                return [replace(piece, index=request.index, top=self._top(request, piece))]
        if self._wave:
            unanswered, self._wave = len(self._wave), {}
            raise RunError(f"the backend left {unanswered} answers without an end")
        return []

    def _top(self, request: Request, piece: Piece) -> Top | None:
        if not request.top_logprobs:
            return None
        before = self._texts[request.index]
        text = self._texts[request.index] = np.concatenate([before, piece.ids])
        (scored,) = score(self._backend, self._state, [text], request.top_logprobs)
        assert scored.top is not None
        return Top(scored.top.ids[len(before) - 1 :], scored.top.logprobs[len(before) - 1 :])

    def _begin(self) -> None:
        """Those that ask for the same as the first that waits."""
        if not self._waiting:
            self._pieces = iter(())
            return
        generation = self._waiting[0].generation
        wave = [request for request in self._waiting if request.generation == generation]
        self._waiting = [request for request in self._waiting if request.generation != generation]
        self._wave = dict(enumerate(wave))
        self._texts = {request.index: request.prompt for request in wave}
        settings = replace(generation, batch_size=len(wave))
        prompts, seeds = [request.prompt for request in wave], [request.seed for request in wave]
        self._pieces = self._backend.generate(self._state, prompts, settings, seeds)
