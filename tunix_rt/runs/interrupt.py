"""Signals and a `stop` file: how work is asked to stop, and where it may.

Most work may stop anywhere, because files on disk are always complete (`Interrupt.at_once`): there a signal raises in
the middle of whatever the main thread does. A training step may not, since its result would be lost: there the loop
checks between two steps (`hold`, `check`). A thread acknowledges the first signal at once, even while the main thread
compiles a program; it ends the process on the second, or if the main thread does not return.

In a job of several processes only the leader works with files, and so only it watches: `relay` tells it of a signal
that another process received, `abort` of a process that failed.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tunix_rt.errors import Interrupted, TunixError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""The last one is how SLURM, and submitit, announce that the time of a job is over."""
ECHO = 0.3
"""Seconds within which a second signal counts as the first: the terminal and a parent process may both send it."""
WAKE = signal.SIGTERM
"""Sent to the main thread, so that it leaves the library or the system call that it is in."""
PATIENCE = 4.0
"""Seconds after which work that may stop anywhere is ended, even if a library blocks the main thread."""
OVER = 0
"""Sent in place of a signal number: watching is over."""
SHOW_CURSOR = b"\x1b[?25h"


class StopRequested(Interrupted):
    """A `stop` file ended the run. `why` is the content of the file; empty if it was only touched."""

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


class _Leave(KeyboardInterrupt):
    """Raised by the signal handler; no `except Exception` of a library catches a KeyboardInterrupt."""


@dataclass(slots=True)
class Interrupt:
    """Whether somebody asked to stop: by SIGINT, SIGTERM or a file named `stop` in the run folder."""

    stop_file: Path
    received: int | None = field(default=None)
    """The first signal."""
    left: bool = field(default=False)
    """Whether the signal has ended the work where it was."""
    saved: str | None = field(default=None)
    """What is on disk, to print after 'stopped', while a signal may end the work anywhere; None: only `check` does."""
    failure: TunixError | None = field(default=None)
    """The error of another process of the job, which ends the work wherever it is."""
    relayed: bool = field(default=False)
    """Whether another process received the first signal; this one may still get a copy."""
    last_words: Callable[[TunixError], None] = field(default=lambda _: None)
    """Records why the work ended, where the main thread cannot."""

    def check(self, saved: str) -> None:
        """Raise Interrupted if somebody asked to stop. `saved` says what is on disk."""
        if self.received is not None or self.failure is not None:
            raise self._interrupted(saved)
        if self.stop_file.exists():
            why = self.stop_file.read_text("utf-8").strip()
            self.stop_file.unlink()
            said = f" ({why})" if why else ""
            raise StopRequested(f"{self.stop_file} found{said}: {_stopped(saved)}", why)

    @contextmanager
    def at_once(self, saved: str) -> Iterator[None]:
        """Within the block, a signal raises Interrupted wherever the main thread is, except after `hold`."""
        before = self.saved
        try:
            self.release(saved)
            yield
        except _Leave:
            raise self._interrupted(self.saved or saved) from None
        finally:
            self.saved = before

    def release(self, saved: str) -> None:
        """From here on a signal ends the work anywhere; one received earlier does so now. Raises Interrupted."""
        self.saved = saved
        self.check(saved)

    def hold(self) -> None:
        """From here on only `check` ends the work: something is not saved yet."""
        self.saved = None

    def _interrupted(self, saved: str) -> TunixError:
        if self.failure is not None:
            return self.failure
        assert self.received is not None
        name = signal.Signals(self.received).name
        return Interrupted(f"{name} received: {_stopped(saved)}", 128 + self.received)

    def _receive(self, number: int, _: FrameType | None) -> None:
        first, self.received = self.received is None and self.failure is None, self.received or number
        if (first and self.saved is not None) or (self.failure is not None and not self.left):
            self.left = True
            raise _Leave


_watching: Interrupt | None = None
"""The one of the block that is being watched."""
_waking = threading.Lock()
"""Held while the main thread is sent a signal, which has a handler only within the block."""


def relay(number: int) -> bool:
    """A signal that another process of this job received stops the work as one of this process would, but never as the
    second one: all processes of a job may get copies of one. Returns False if nobody watches. From any thread."""
    with _waking:
        watched = _watching
        if watched is not None and watched.received is None and not watched.relayed:
            watched.relayed = True
            signal.pthread_kill(_main_thread(), number)
        return watched is not None


def abort(error: TunixError) -> Interrupt | None:
    """End the work with an error of another process of this job; returns None if nobody watches. From any thread."""
    with _waking:
        if _watching is not None:
            _watching.failure = error
            signal.pthread_kill(_main_thread(), WAKE)
        return _watching


def end_with(error: TunixError) -> NoReturn:
    """End this process, whose main thread does not come back; the record says why."""
    if _watching is not None:
        _watching.last_words(error)
    _say(f"error: {error}")
    _leave(error.exit_code)


def _main_thread() -> int:
    return int(threading.main_thread().ident or 0)


@contextmanager
def watching(run_folder: Path) -> Iterator[Interrupt]:
    """Report signals through an `Interrupt` while the block runs; a second signal ends the process at once.

    A signal that this process ignores (`nohup`) stays ignored. Outside the main thread only the file counts.
    """
    interrupt = Interrupt(run_folder / "stop")
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    global _watching
    heard, told = socket.socketpair()
    told.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(heard, interrupt), daemon=True)
    watcher.start()
    descriptor = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, interrupt._receive)
    outer, _watching = _watching, interrupt
    try:
        yield interrupt
    except _Leave:  # between two blocks
        raise interrupt._interrupted("between two stages") from None
    finally:
        interrupt.left = True
        interrupt.hold()
        with _waking:
            _watching = outer
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(descriptor)
        told.send(bytes([OVER]))
        watcher.join()
        heard.close()
        told.close()


def _watch(heard: socket.socket, interrupt: Interrupt) -> None:
    """Read signals as they come, whatever the main thread is doing."""
    first, copies = 0, 0
    since = deadline = float("inf")
    while True:
        left = None if deadline == float("inf") else max(deadline - time.monotonic(), 0.0)
        if not select.select([heard], [], [], left)[0]:
            deadline = float("inf")
            if interrupt.saved is not None:
                _end(first, _stopped(interrupt.saved))
            continue
        number = heard.recv(1)[0]
        if number == OVER:
            return
        if number not in SIGNALS or interrupt.failure is not None:
            continue
        if not first:
            first, since, copies = number, time.monotonic(), int(interrupt.relayed)
            deadline = since + PATIENCE
            at_once = interrupt.left or interrupt.saved is not None
            what = "stopping" if at_once else "stopping after this step"
            _say(f"{signal.Signals(number).name} received: {what}; again to stop at once")
        elif copies:
            copies, since = 0, time.monotonic()
        elif time.monotonic() - since > _echo():
            _end(number, "ended at once; what is saved stays")


def _echo() -> float:
    """torchrun gets what the terminal sends to the whole group, and passes it on when it next looks."""
    return 10 * ECHO if "TORCHELASTIC_RUN_ID" in os.environ else ECHO


def _end(number: int, how: str) -> None:
    _say(f"{signal.Signals(number).name} received: {how}")
    _leave(128 + number)


def _leave(code: int) -> NoReturn:
    if os.isatty(2):
        os.write(2, SHOW_CURSOR)
    os._exit(code)


def _stopped(saved: str) -> str:
    return f"stopped {saved}; the same command goes on from there"


def _say(text: str) -> None:
    """Write a line to stderr, bypassing all buffers: the main thread may hold their lock."""
    start = "\n" if os.isatty(2) else ""  # after the `^C` that the terminal shows, or a progress bar
    with suppress(OSError):
        os.write(2, f"{start}{text}\n".encode())
