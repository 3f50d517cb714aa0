"""One thread owns a model and answers all requests together: who comes joins at the next step, who leaves makes room.

Everything else is asyncio's: a request hands in its rows and gets their pieces through a queue. What does not fit into
the batch waits in a queue, which has an end.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from tunix_rt.backends.interface import ContinuousBatch, Piece, Request
from tunix_rt.errors import TunixError
from tunix_rt.runs.secrets import masked_traceback
from tunix_rt.serving.ticket import Closed, Failed, Full, ModelFailed, Ticket, call_in
from tunix_rt.terminal import say

CLOSING_SECONDS = 30.0
"""How long the end waits for the steps that are being computed."""


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

    def settle(self, value: Any, error: Exception | None) -> None:
        def settle() -> None:
            if not self.future.done():
                self.future.set_exception(error) if error is not None else self.future.set_result(value)

        call_in(self.loop, settle)


class Scheduler:
    """The thread of one model."""

    def __init__(self, open_batch: Callable[[int], ContinuousBatch], rows: int, queue: int) -> None:
        """`open_batch`: an empty batch of `rows` rows; `queue`: how many more may wait for a place in it."""
        self._open_batch, self._rows = open_batch, rows
        self.capacity = rows + queue
        """Rows that are answered or wait, at most."""
        self._changed = threading.Condition()
        self._waiting: deque[_Row] = deque()
        self._tasks: deque[_Task] = deque()
        self._aborted: list[int] = []
        self._active: dict[int, _Row] = {}
        self._numbers = itertools.count()
        self._closed: Exception | None = None
        """Why nothing more is answered."""
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def submit(self, requests: Sequence[Request]) -> Ticket:
        """Hand in the rows of one request; their `index` is given here. Raises Full, Closed, ModelFailed."""
        with self._changed:
            self._check_room(len(requests))
            numbers = [next(self._numbers) for _ in requests]
            ticket = Ticket(numbers, self.abort)
            self._waiting += [
                _Row(ticket, place, replace(request, index=numbers[place])) for place, request in enumerate(requests)
            ]
            self._changed.notify()
        return ticket

    async def compute(self, work: Callable[[], Any], size: int) -> Any:
        """What `work`, of `size` rows, returns in the thread of the model. Raises Full, Closed, ModelFailed."""
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
            self._aborted += [number for number in numbers if number in self._active]
            self._changed.notify()

    @property
    def num_waiting(self) -> int:
        """Rows in the queue."""
        with self._changed:
            return self._queued()

    @property
    def num_active(self) -> int:
        """Rows that are being answered."""
        with self._changed:
            return len(self._active)

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is answered: the server ends, or the model has failed for good."""
        with self._changed:
            return self._closed is not None

    def close(self) -> None:
        """Nothing more is answered after the step that is being computed; who still waits then gets Closed."""
        self._close(Closed())

    def join(self, seconds: float) -> None:
        """Wait until the thread has ended, after `close`; not longer than `seconds`."""
        self._thread.join(seconds)

    def _close(self, reason: Exception) -> None:
        with self._changed:
            self._closed = self._closed or reason
            self._changed.notify()

    def _queued(self) -> int:
        return len(self._waiting) + sum(task.size for task in self._tasks)

    def _check_room(self, size: int) -> None:
        if self._closed is not None:
            raise self._closed.with_traceback(None)
        taken = self._queued() + len(self._active)
        if taken + size > self.capacity:
            raise Full(f"{taken} answers are written or wait already, and there is room for {self.capacity}")

    def _run(self) -> None:
        try:
            while not self.is_closed:
                self._use_one_batch()
        except Exception as error:  # no batch can be opened: nobody would be answered ever again
            self._close(ModelFailed.of(error))
            _say(error)
        self._fail(self._closed or Closed())

    def _use_one_batch(self) -> None:
        """Answer until the end, or until something fails: then this batch, and the memory it has, is given up.

        Raises what opening it raises.
        """
        batch = self._open_batch(self._rows)
        try:
            while self._has_work():
                self._compute_tasks()
                self._join(batch)
                self._distribute(batch.step())
        except Exception as error:  # whatever it is, it is the answer to those whose rows were computed
            self._fail(ModelFailed.of(error))
            _say(error)

    def _has_work(self) -> bool:
        """Wait until there is; False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting or self._tasks or self._active)
            return self._closed is None

    def _compute_tasks(self) -> None:
        with self._changed:
            tasks, self._tasks = self._tasks, deque()
        for task in tasks:
            try:
                task.settle(task.work(), None)
            except Exception as error:
                task.settle(None, ModelFailed.of(error))
                _say(error)

    def _join(self, batch: ContinuousBatch) -> None:
        with self._changed:
            aborted, self._aborted = self._aborted, []
            for number in aborted:
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

    def _fail(self, error: Exception) -> None:
        with self._changed:
            failed = list(self._active.values())
            self._active, self._aborted = {}, []
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


async def close_all(schedulers: Sequence[Scheduler]) -> None:
    """Close them together, and wait for their threads, not longer than `CLOSING_SECONDS` in all."""
    for one in schedulers:
        one.close()

    def join() -> None:
        end = time.monotonic() + CLOSING_SECONDS
        for one in schedulers:
            one.join(max(0.0, end - time.monotonic()))

    await asyncio.to_thread(join)


def _say(error: Exception) -> None:
    with suppress(OSError):  # a terminal that is gone is no reason to answer nobody
        say(str(error) if isinstance(error, TunixError) else masked_traceback(error))
