"""One call of a method in every process: the replies that the leader waits for, and the pieces that arrive before."""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from tunix_rt.backends.interface import Piece


@dataclass(slots=True)
class Call:
    """Any thread may set a reply; of each follower the first one counts."""

    number: int
    replies: dict[int, Future[Any]]
    """By the follower's rank: what it replied, or raised."""
    pieces: SimpleQueue[Piece | None] = field(default_factory=SimpleQueue)
    """Of `generate`: those of the followers; None after one of them replied, or has failed."""

    def set_result(self, rank: int, value: Any) -> None:
        """The follower has made the call."""
        with suppress(InvalidStateError):
            self.replies[rank].set_result(value)
        self.pieces.put(None)

    def set_error(self, rank: int, error: BaseException) -> None:
        """The follower has failed, or will not reply any more."""
        with suppress(InvalidStateError):
            self.replies[rank].set_exception(error)
        self.pieces.put(None)

    def done(self) -> bool:
        """Whether every follower has replied."""
        return all(reply.done() for reply in self.replies.values())
