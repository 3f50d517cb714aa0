"""One answer as it is written: pieces of tokens in, pieces of text with their tokens out, up to a stop string.

The one place where what a backend generates becomes text: for `ask`, for every endpoint of `serve`, streamed or not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from tunix_rt.backends.interface import FinishReason, Piece
from tunix_rt.inference.detokenize import Detokenizer, Group
from tunix_rt.inference.stops import StopStrings
from tunix_rt.models.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Likely:
    """A token and its natural log-probability."""

    id: int
    bytes: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class Written:
    """A token of an answer."""

    token: Likely
    start: int
    """Characters of the text before it, or before the first of the tokens that make a character together."""
    top: tuple[Likely, ...]
    """The likeliest tokens in its place, the likeliest first; empty if nobody asked for them."""


@dataclass(frozen=True, slots=True)
class Passage:
    """What is new of an answer."""

    text: str
    tokens: tuple[Written, ...]
    """Those that begin in the text so far; one that a stop string cuts is among them."""
    finish_reason: FinishReason | None
    """None if more follows."""
    end: Likely | None = None
    """The token that ended the answer, if one did and the backend can tell."""


class Writing:
    """The state of one answer."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._spelling, self._stops = Detokenizer(tokenizer), StopStrings(stops)
        self._unspelled: deque[tuple[float, tuple[Likely, ...]]] = deque()
        self._spelled: deque[Written] = deque()
        self._decoded = 0
        """Characters, those that are held back included."""
        self.text = ""
        self.num_tokens = 0
        """Of those that were passed on."""
        self.finish_reason: FinishReason | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended it: what the backend goes on with is of no use."""
        return self._stops.hit is not None

    def add(self, piece: Piece) -> Passage:
        """What a piece adds. It may be nothing: a character is not complete, or a stop string may have begun."""
        new = "".join(self._add_token(piece, place) for place in range(len(piece.ids)) if not self.stopped)
        if piece.finish_reason is not None:
            new += self._end()
        self.text += new
        self.finish_reason = "stop" if self.stopped else piece.finish_reason
        tokens = tuple(self._passed_on())
        self.num_tokens += len(tokens)
        return Passage(new, tokens, self.finish_reason, None if self.stopped else self._ending(piece))

    def _add_token(self, piece: Piece, place: int) -> str:
        top = piece.top
        likely = () if top is None else zip(top.ids[place].tolist(), top.logprobs[place].tolist(), strict=True)
        alternatives = tuple(Likely(token, self._spelling.bytes_of(token), logprob) for token, logprob in likely)
        self._unspelled.append((float(piece.logprobs[place]), alternatives))
        group = self._spelling.add(int(piece.ids[place]))
        return "" if group is None else self._spell(group)

    def _end(self) -> str:
        group = None if self.stopped else self._spelling.end()
        return ("" if group is None else self._spell(group)) + self._stops.end()

    def _spell(self, group: Group) -> str:
        for token, own in zip(group.ids, group.bytes, strict=True):
            logprob, top = self._unspelled.popleft()
            self._spelled.append(Written(Likely(token, own, logprob), self._decoded, top))
        self._decoded += len(group.text)
        return self._stops.add(group.text)

    def _passed_on(self) -> list[Written]:
        ended, length = self.finish_reason is not None, len(self.text)
        found = []
        while self._spelled and (self._spelled[0].start < length or (ended and not self.stopped)):
            found.append(self._spelled.popleft())
        return found

    def _ending(self, piece: Piece) -> Likely | None:
        if piece.stop_id is None or piece.stop_logprob is None:
            return None
        return Likely(piece.stop_id, self._spelling.bytes_of(piece.stop_id), piece.stop_logprob)
