"""The requests of a batch: what each was given so far, and what was not yet said of it. No tensors."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tunix_rt.backends.interface import FinishReason, Piece, Request, Top
from tunix_rt.backends.sampling import uniforms
from tunix_rt.backends.torch.sampling import Settings
from tunix_rt.batches.encoded import Int32
from tunix_rt.models.folder import Float32


@dataclass(slots=True)
class Row:
    """One request's unfinished completion: the tokens not yet yielded."""

    request: Request
    room: int
    """New tokens that it may still get."""
    settings: Settings
    draws: Float32
    """A uniform number for each of them; empty if nothing is sampled."""
    made: int = 0
    """Tokens so far."""
    last: int = 0
    """The last of them, which is read next."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    tops: list[tuple[Int32, Float32]] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_id: int | None = None
    stop_logprob: float | None = None

    @classmethod
    def of(cls, request: Request, max_positions: int) -> Row:
        """A row of a model with so many positions."""
        room = min(request.generation.max_new_tokens, max_positions - len(request.prompt))
        settings = Settings.of(request.generation)
        draws = uniforms([request.seed], max(0, room))[0] if settings.temperature > 0 else np.empty(0, np.float32)
        return cls(request, room, settings, draws, finish_reason="length" if room <= 0 else None)

    @property
    def draw(self) -> float:
        """The number for its next token."""
        return float(self.draws[self.made]) if len(self.draws) else 0.0

    def add(self, token: int, logprob: float, stop_ids: frozenset[int], top: tuple[Int32, Float32] | None) -> None:
        """Take the next token, which may end it."""
        self.room -= 1
        self.made += 1
        self.last = token
        if token in stop_ids:
            self.finish_reason, self.stop_id, self.stop_logprob = "stop", token, logprob
            return
        self.ids.append(token)
        self.logprobs.append(logprob)
        if top is not None:
            self.tops.append(top)
        if self.room == 0:
            self.finish_reason = "length"

    def piece(self) -> Piece:
        """What was not yet said."""
        ids: Int32 = np.array(self.ids, np.int32)
        logprobs: Float32 = np.array(self.logprobs, np.float32)
        top = _joined(self.tops, self.request.top_logprobs) if self.request.top_logprobs else None
        self.ids, self.logprobs, self.tops = [], [], []
        return Piece(self.request.index, ids, logprobs, self.finish_reason, self.stop_id, self.stop_logprob, top)


def _joined(tops: list[tuple[Int32, Float32]], count: int) -> Top:
    if not tops:
        return Top(np.empty((0, count), np.int32), np.empty((0, count), np.float32))
    ids, logprobs = zip(*tops, strict=True)
    return Top(np.stack(ids), np.stack(logprobs))
