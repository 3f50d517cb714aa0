"""What a request holds of its rows while they are answered, and why they may get no answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tunix_rt.backends.interface import Piece
from tunix_rt.errors import TunixError
from tunix_rt.runs.secrets import mask_values


class Full(Exception):
    """The queue has no room for a request now."""


class Closed(Exception):
    """The server is about to end."""


class ModelFailed(Exception):
    """The model could not answer; the message is for the client.

    It holds no part of the error behind it: by its traceback that would keep the memory of the batch.
    """

    @classmethod
    def of(cls, error: Exception) -> ModelFailed:
        """What a client may know of an error."""
        return cls(mask_values(str(error)) if isinstance(error, TunixError) else "the server's terminal says why")


class ClientDisconnected(Exception):
    """The client has closed its connection."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Why rows get no more pieces."""

    error: Exception


@dataclass(slots=True, eq=False)
class Ticket:
    """What a request gets for its rows: their pieces as they are made, by the place of the row in the request."""

    rows: list[int]
    """Their numbers in the scheduler."""
    abort_rows: Callable[[Sequence[int]], None]
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    arrived: asyncio.Queue[list[tuple[int, Piece]] | Failed] = field(default_factory=asyncio.Queue)
    ended: set[int] = field(default_factory=set)
    """Places of rows of which nothing more is expected."""

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """(place of the row, piece), until every row has its last one. Raises what ended them early."""
        while len(self.ended) < len(self.rows):
            found = await self.arrived.get()
            if isinstance(found, Failed):
                raise found.error
            for place, piece in found:
                if place not in self.ended:
                    if piece.finish_reason is not None:
                        self.ended.add(place)
                    yield place, piece

    def abort(self, place: int) -> None:
        """No more of one row: its place in the batch is free at the next step."""
        self.ended.add(place)
        self.abort_rows([self.rows[place]])

    def close(self) -> None:
        """No more of any row, since the client is gone: `pieces` raises ClientDisconnected where it still waits."""
        self.abort_rows(self.rows)
        self.arrived.put_nowait(Failed(ClientDisconnected()))

    def deliver(self, found: list[tuple[int, Piece]] | Failed) -> None:
        """From the thread of the model."""
        call_in(self.loop, lambda: self.arrived.put_nowait(found))


def call_in(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """From another thread. A loop that is closed, perhaps this very moment, has nobody who waits."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call)
