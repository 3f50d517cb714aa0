"""The leader's side of a job: the processes that follow, what they are told, and what happens when one of them fails.

Every call reaches every follower in the order in which the leader makes it. A thread for each follower hears its
replies. The first error of one ends the work of all: the others are told to leave, which ends the collective that the
leader may be in, and if it does not, the process is ended.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from tunix_rt.backends.processes.calls import Call
from tunix_rt.backends.processes.channel import PATIENCE, VERSION, Channel, accept
from tunix_rt.backends.processes.failure import describe_error, process_ended, rebuild_error, show_notes
from tunix_rt.backends.processes.messages import pack
from tunix_rt.backends.processes.world import World
from tunix_rt.errors import RunError, TunixError
from tunix_rt.runs import interrupt

GRACE = 1.0
"""Seconds that the processes may differ in noticing what all of them meet, memory that is full for example."""
STUCK = 4.0
"""Seconds after a failure within which a leader that is in the middle of a collective has to have left it."""
LEAVING = 10.0
"""Seconds that a process of ours may take to end before it is killed."""
LATE = 60.0
"""Seconds that a leader that has nothing to compute waits at its end for followers that have not been there yet."""

SIGNALLED = 128
"""Exit codes from here on are those of a signal, which those that are late get too."""


@dataclass(slots=True)
class Follower:
    """A process that follows, as the leader knows it."""

    rank: int
    channel: Channel
    name: str


class Job:
    """The followers of this process. All of them are there once `ready` returns."""

    def __init__(
        self, world: World, listening: socket.socket, key: bytes, processes: list[subprocess.Popen[bytes]] | None = None
    ) -> None:
        """`processes`: those that this one has started, ranks 1 and on; None: a launcher has."""
        self.world = world
        self.processes = processes
        self.failure: TunixError | None = None
        self.broken = False
        """Whether calls of this process and of others may no longer match: nothing more can be computed together."""
        self.leave_framework: Callable[[], None] | None = None
        """Ends the framework's part of the job in this process, when all do so; None if it has not begun."""
        self._listening, self._key = listening, key
        self._dropped: list[int] = []
        self._raised: tuple[Call, TunixError] | None = None
        """The first error that a follower has met, and this process has not met in the same call."""
        self._followers: dict[int, Follower] = {}
        self._calls: dict[int, Call] = {}
        self._lock = threading.Lock()
        self._complete = threading.Event()
        self._noticed = False
        self.closed = False
        """Whether the followers were sent away."""
        self._inside = 0
        self._number = 0
        threading.Thread(target=self._accept, daemon=True).start()

    # Those that follow

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while not self._complete.is_set():
                connected, _ = self._listening.accept()
                threading.Thread(target=self._receive_loop, args=(connected,), daemon=True).start()

    def _receive_loop(self, connected: socket.socket) -> None:
        """Everything that one follower says, until it is gone. Strangers are not heard."""
        follower = None
        if (channel := accept(connected, self._key)) is None:
            return
        try:
            follower = self._register(channel)
            while True:
                self._on_message(follower, channel.receive())
        except (EOFError, OSError):
            if follower is not None:
                self.fail(self._disconnected(follower))
        except Exception as error:  # a thread that ends without a word would leave the others waiting
            self.fail(rebuild_error(describe_error(error), "the leader"))

    def _register(self, channel: Channel) -> Follower:
        hello = channel.receive()
        rank, version = int(hello["rank"]), str(hello["version"])
        follower = Follower(rank, channel, f"process {rank} of {self.world.size} on {hello['host']}")
        if version != VERSION:
            self.fail(RunError(f"{follower.name} is tunix_rt {version}, and the leader {VERSION}"))
        with self._lock:
            self._followers[rank] = follower
            if len(self._followers) == self.world.size - 1:
                self._complete.set()
        return follower

    def ready(self) -> None:
        """Wait until every follower is there. Raises RunError if some are not within `PATIENCE` seconds."""
        deadline = time.monotonic() + PATIENCE
        while not self._complete.wait(0.05):
            self.check()
            for rank, process in enumerate(self.processes or (), start=1):
                if process.poll() is not None:
                    raise process_ended(f"process {rank} of {self.world.size}", process.returncode)
            if time.monotonic() > deadline:
                there = sorted({0, *self._followers})
                raise RunError(
                    f"of {self.world.size} processes only those of rank {', '.join(map(str, there))} were there "
                    f"within {PATIENCE:.0f} s; the launcher's output says what became of the others"
                )

    # What they are told

    def send(self, method: str, **arguments: Any) -> Call:
        """Tell every follower to make a call. Raises what `check` raises."""
        self.check()
        self._number += 1
        call = Call(self._number, {rank: Future() for rank in sorted(self._followers)})
        dropped = list(self._dropped)
        del self._dropped[: len(dropped)]
        data = pack({"call": call.number, "method": method, "arguments": arguments, "dropped": dropped})
        self._calls[call.number] = call
        for follower in self._followers.values():
            with suppress(OSError):  # who hears it knows why
                follower.channel.send_packed(data)
        return call

    def drop(self, number: int) -> None:
        """Let the others know, with the next call, that they need not hold something any longer. From any thread."""
        self._dropped.append(number)

    @contextmanager
    def together(self, call: Call | None = None) -> Iterator[None]:
        """Within the block this process does its own part. Raises the error of another process rather than its own."""
        self._inside += 1
        try:
            yield
        except Exception as error:
            self._reconcile(call, error)
            raise
        except BaseException:
            self.broken = True
            raise
        finally:
            self._inside -= 1

    def check(self) -> None:
        """Raises the error of the process that failed, if one did."""
        if self._raised is not None:
            self.fail(self._raised[1])
        if self.failure is not None:
            self._noticed = True
            raise self.failure

    def _reconcile(self, call: Call | None, error: Exception) -> None:
        """After an error here: whether it is one of all processes alike, which can then go on, or that of another."""
        if call is None:
            time.sleep(0 if isinstance(error, TunixError) else GRACE)
        elif wait(call.replies.values(), GRACE).not_done:
            self.broken = True
        if call is not None and self._raised is not None and self._raised[0] is call:
            self._raised = None
        try:
            self.check()
        except TunixError as failure:
            raise failure from error

    # What they say

    def _on_message(self, follower: Follower, message: dict[str, Any]) -> None:
        if message["is"] == "signal":
            self._on_signal(int(message["number"]))
            return
        call = self._calls[message["call"]]
        if message["is"] == "piece":
            call.pieces.put(message["piece"])
            return
        if message["is"] == "raised":
            error = rebuild_error(message["error"], follower.name)
            self._raised = self._raised or (call, error)
            call.set_error(follower.rank, error)
            _later(GRACE, self._fail_unless_shared, error)
        else:
            call.set_result(follower.rank, message["value"])
        if call.done():
            self._calls.pop(call.number, None)

    def _fail_unless_shared(self, error: TunixError) -> None:
        """An error of a follower that the leader does not meet itself is the end."""
        if self._raised is not None and self._raised[1] is error:
            self.fail(error)

    def _on_signal(self, number: int) -> None:
        """A signal that a follower received is meant for the job."""
        if not interrupt.relay(number):
            os.kill(os.getpid(), number)

    def _disconnected(self, follower: Follower) -> TunixError:
        code = None
        if self.processes is not None:
            with suppress(subprocess.TimeoutExpired):
                code = self.processes[follower.rank - 1].wait(GRACE)
        return process_ended(follower.name, code)

    def fail(self, error: TunixError) -> None:
        """End the work of all processes with this error, the first one; from any thread."""
        with self._lock:
            if self.failure is not None or self.closed:
                return
            self.failure, self.broken = error, True
        show_notes(error)
        for call in list(self._calls.values()):
            for rank in call.replies:
                call.set_error(rank, error)
        self._send_exit(error.exit_code)
        watched = interrupt.abort(error)
        _later(STUCK, self._end_if_stuck, error, watched)

    def _end_if_stuck(self, error: TunixError, watched: interrupt.Interrupt | None) -> None:
        """A collective whose other processes are gone may never return, and no signal is handled in it."""
        stays = self._inside > 0 if watched is None else not watched.left
        if stays and not self._noticed:
            self._kill()
            interrupt.end_with(error)

    # How it ends

    def close(self, code: int) -> None:
        """Tell every follower to end with this exit code, and wait for those that this process started."""
        if self.closed:
            return
        if not self.broken and self.leave_framework is not None:
            self._leave_framework(self.leave_framework)
        if self.processes is None and self.failure is None and code < SIGNALLED:
            self._complete.wait(LATE)  # whoever comes later finds nobody, and ends with an error
        self.closed = True
        self._complete.set()
        self._send_exit(code)
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        deadline = time.monotonic() + LEAVING
        for process in self.processes or ():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        self._kill()

    def _leave_framework(self, leave: Callable[[], None]) -> None:
        """Leave the framework's own connections, all processes together: it would wait for those that have gone."""
        with suppress(TunixError):
            call = self.send("leave_framework")
            parting = threading.Thread(target=leave, daemon=True)
            parting.start()
            parting.join(LEAVING)
            self.broken = parting.is_alive() or bool(wait(call.replies.values(), LEAVING).not_done)

    def _send_exit(self, code: int) -> None:
        data = pack({"call": 0, "method": "leave", "arguments": {"code": code}, "dropped": []})
        for follower in list(self._followers.values()):
            with suppress(OSError):
                follower.channel.send_packed(data)

    def _kill(self) -> None:
        for process in self.processes or ():
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()


def _later(seconds: float, work: Callable[..., None], *arguments: Any) -> None:
    timer = threading.Timer(seconds, work, arguments)
    timer.daemon = True
    timer.start()
