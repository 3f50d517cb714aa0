"""A process that follows: it makes the calls that the leader makes, and nothing else, until it is told to leave.

Two threads stay attentive while the main thread computes: one hears the leader, whose end is the end of this process;
one passes signals on to the leader, which alone knows what there is to save.
"""

from __future__ import annotations

import importlib
import os
import platform
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NoReturn

from tunix_rt import faults
from tunix_rt.backends import heap
from tunix_rt.backends.processes.channel import VERSION, Channel, connect, job_key
from tunix_rt.backends.processes.failure import describe_error
from tunix_rt.backends.processes.messages import Held
from tunix_rt.backends.processes.world import World
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.runs.interrupt import SIGNALS

LEADERLESS = 1
"""Exit code where the leader ended without a word."""


def follow(world: World) -> NoReturn:
    """Follow the leader until it ends, and end with its exit code. Raises RunError if it is not found."""
    heap.own_process()
    try:
        channel = connect(world, job_key())
        channel.send({"rank": world.rank, "host": platform.node(), "version": VERSION})
    except (EOFError, OSError):
        os._exit(LEADERLESS)
    _forward_signals(channel)
    calls: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_receive_loop, args=(channel, calls), daemon=True).start()
    sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (the leader says it all)
    following = _Following(world, channel)
    while True:
        following.make(calls.get())


def _receive_loop(channel: Channel, calls: SimpleQueue[dict[str, Any]]) -> None:
    """Hand calls on to the main thread; leave when told to, whatever it does."""
    code = LEADERLESS
    with suppress(EOFError, OSError):
        while (message := channel.receive())["method"] != "leave":
            calls.put(message)
        code = int(message["arguments"]["code"])
    os._exit(code)


def _forward_signals(channel: Channel) -> None:
    """Tell the leader of every signal, from a thread: the main one may be in a library."""
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)

    def forward() -> None:
        with suppress(OSError):
            while number := reading.recv(1)[0]:
                channel.send({"is": "signal", "number": number})

    threading.Thread(target=forward, daemon=True).start()


class _Following:
    """What this process holds of the job, and the calls that it can make."""

    def __init__(self, world: World, channel: Channel) -> None:
        self._world, self._channel = world, channel
        self._held: dict[int, Any] = {}
        self._leave: Callable[[], None]

    def make(self, message: Mapping[str, Any]) -> None:
        """Make a call, and reply. An error is the leader's to judge: it may be that of all processes."""
        for number in message["dropped"]:
            self._held.pop(number, None)
        number, method = int(message["call"]), str(message["method"])
        faults.point(f"followed {method}")
        try:
            value = self._dispatch(number, method, message["arguments"])
        except Exception as error:
            self._raised(number, error)
        else:
            self._reply(number, value)

    def _dispatch(self, number: int, method: str, arguments: dict[str, Any]) -> Any:
        match method:
            case "create":
                return self._create(number, **arguments)
            case "leave_framework":
                return self._leave()
            case "set_rows_at_once":
                return self._set_rows_at_once(**arguments)
        return self._call(number, method, **arguments)

    def _reply(self, number: int, value: Any) -> None:
        if isinstance(value, Future):
            value.add_done_callback(lambda done: self._reply_later(number, done))
        else:
            self._channel.send({"is": "done", "call": number, "value": value})

    def _reply_later(self, number: int, done: Future[Any]) -> None:
        error = done.exception()
        if isinstance(error, Exception):
            self._raised(number, error)
        else:
            self._reply(number, done.result())

    def _raised(self, number: int, error: Exception) -> None:
        self._channel.send({"is": "raised", "call": number, "error": describe_error(error)})

    def _create(
        self, number: int, backend: BackendConfig, hardware: HardwareConfig, cache: Path, world: World, folder: Path
    ) -> None:
        """`world`: where the framework's processes meet."""
        os.chdir(folder)
        here = replace(self._world, address=world.address, port=world.port)
        module = importlib.import_module(f"tunix_rt.backends.{backend.name}.backend")
        self._leave = module.leave
        self._held[number] = module.create(backend, hardware, cache, here)

    def _set_rows_at_once(self, backend: Held, rows: int | None) -> None:
        self._held[backend.number].rows_at_once = rows

    def _call(
        self, number: int, method: str, backend: Held, state: Held | None = None, **arguments: Any
    ) -> Future[dict[str, str]] | None:
        """A method of `Backend`: without a state it makes one, and `train_step` replaces the one that it is given."""
        work = getattr(self._held[backend.number], method)
        if state is None:
            self._held[number] = work(**arguments)
        elif method == "train_step":
            self._held[state.number] = work(self._held.pop(state.number), **arguments)[0]
        elif method == "generate":
            for piece in work(self._held[state.number], **arguments):
                self._channel.send({"is": "piece", "call": number, "piece": piece})
        else:
            result = work(self._held[state.number], **arguments)
            return result if isinstance(result, Future) else None
        return None
