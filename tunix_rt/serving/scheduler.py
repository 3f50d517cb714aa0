"""One thread owns a model and answers all requests together: who comes joins at the next step, who leaves makes room.

Everything else is asyncio's: a request hands in its rows and gets their pieces through a queue. What does not fit into
the batch waits in line; the line has an end.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tunix_rt.backends.interface import ContinuousBatch, Piece, Request
from tunix_rt.errors import TunixError
from tunix_rt.runs.secrets import masked_traceback
from tunix_rt.terminal import say

CLOSING_SECONDS = 30.0
"""How long the end waits for a step that is being computed."""


class Full(Exception):
    """The line has no room for a request."""


class Closed(Exception):
    """The server is about to end."""


class Left(Exception):
    """The client is gone."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Why rows get no more pieces."""

    error: BaseException


@dataclass(slots=True, eq=False)
class Ticket:
    """What a request gets for its rows: their pieces as they are made, by the place of the row in the request."""

    scheduler: Scheduler
    rows: list[int]
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
        self.scheduler.abort([self.rows[place]])

    def leave(self) -> None:
        """No more of any row; `pieces` raises Left if somebody still waits for it."""
        self.scheduler.abort(self.rows)
        self.arrived.put_nowait(Failed(Left()))

    def deliver(self, found: list[tuple[int, Piece]] | Failed) -> None:
        """From the thread of the model."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.arrived.put_nowait, found)


@dataclass(frozen=True, slots=True)
class _Row:
    ticket: Ticket
    place: int
    request: Request


@dataclass(frozen=True, slots=True)
class _Task:
    """Something else that the model is to compute, between two steps."""

    work: Callable[[], Any]
    size: int
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop

    def settle(self, value: Any, error: BaseException | None) -> None:
        def settle() -> None:
            if not self.future.done():
                self.future.set_exception(error) if error is not None else self.future.set_result(value)

        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(settle)


class Scheduler:
    """The thread of one model."""

    def __init__(self, open_batch: Callable[[], ContinuousBatch], line: int) -> None:
        """`open_batch`: an empty batch; `line`: how many rows may wait for a place in it."""
        self._open_batch, self._line = open_batch, line
        self._changed = threading.Condition()
        self._waiting: deque[_Row] = deque()
        self._tasks: deque[_Task] = deque()
        self._leaving: list[int] = []
        self._active: dict[int, _Row] = {}
        self._numbers = itertools.count()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def submit(self, requests: Sequence[Request]) -> Ticket:
        """Hand in the rows of one request; their `index` is given here. Raises Full, Closed."""
        with self._changed:
            self._check_room(len(requests))
            numbers = [next(self._numbers) for _ in requests]
            ticket = Ticket(self, numbers)
            self._waiting += [
                _Row(ticket, place, replace(request, index=numbers[place])) for place, request in enumerate(requests)
            ]
            self._changed.notify()
        return ticket

    async def compute(self, work: Callable[[], Any], size: int) -> Any:
        """What `work`, of `size` rows, returns in the thread of the model. Raises Full, Closed, and what it raises."""
        loop = asyncio.get_running_loop()
        task = _Task(work, size, loop.create_future(), loop)
        with self._changed:
            self._check_room(size)
            self._tasks.append(task)
            self._changed.notify()
        return await task.future

    def abort(self, numbers: Sequence[int]) -> None:
        """Rows by their numbers: whether they wait or are answered, they are no more."""
        with self._changed:
            gone = set(numbers)
            self._waiting = deque(row for row in self._waiting if row.request.index not in gone)
            self._leaving += [number for number in numbers if number in self._active]
            self._changed.notify()

    @property
    def num_waiting(self) -> int:
        """Rows in line."""
        with self._changed:
            return len(self._waiting) + sum(task.size for task in self._tasks)

    @property
    def num_active(self) -> int:
        """Rows that are being answered."""
        with self._changed:
            return len(self._active)

    def close(self) -> None:
        """Nothing more is answered; who still waits gets Closed. Returns when the thread has ended."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(CLOSING_SECONDS)

    def _check_room(self, size: int) -> None:
        if self._closed:
            raise Closed
        waiting = len(self._waiting) + sum(task.size for task in self._tasks)
        if waiting + size > self._line:
            raise Full(f"{waiting} answers wait already, and there is room for {self._line}")

    def _run(self) -> None:
        batch = self._open_batch()
        while self._has_work():
            try:
                self._compute_tasks()
                self._join(batch)
                self._distribute(batch.step())
            except Exception as error:  # whatever it is, it is the answer to those whose rows were computed
                say(str(error) if isinstance(error, TunixError) else masked_traceback(error))
                self._fail(error)
                batch = self._open_batch()
        self._fail(Closed())

    def _has_work(self) -> bool:
        """Wait until there is; False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting or self._tasks or self._active)
            return not self._closed

    def _compute_tasks(self) -> None:
        with self._changed:
            tasks, self._tasks = self._tasks, deque()
        for task in tasks:
            try:
                task.settle(task.work(), None)
            except Exception as error:
                say(str(error) if isinstance(error, TunixError) else masked_traceback(error))
                task.settle(None, error)

    def _join(self, batch: ContinuousBatch) -> None:
        with self._changed:
            leaving, self._leaving = self._leaving, []
            for number in leaving:
                if self._active.pop(number, None) is not None:
                    batch.abort(number)
            joining = [self._waiting.popleft() for _ in range(min(batch.free, len(self._waiting)))]
            self._active |= {row.request.index: row for row in joining}
        for row in joining:
            batch.add(row.request)

    def _distribute(self, pieces: Sequence[Piece]) -> None:
        by_ticket: dict[Ticket, list[tuple[int, Piece]]] = {}
        with self._changed:
            for piece in pieces:
                row = self._active[piece.index]
                by_ticket.setdefault(row.ticket, []).append((row.place, piece))
                if piece.finish_reason is not None:
                    del self._active[piece.index]
        for ticket, found in by_ticket.items():
            ticket.deliver(found)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            failed = list(self._active.values())
            self._active, self._leaving = {}, []
            if self._closed:
                failed += self._waiting
                tasks = list(self._tasks)
                self._waiting.clear()
                self._tasks.clear()
            else:
                tasks = []
        for ticket in {row.ticket for row in failed}:
            ticket.deliver(Failed(error))
        for task in tasks:
            task.settle(None, error)
