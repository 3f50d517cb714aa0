"""Signals and a `stop` file become a question that both loops ask between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tunix_rt.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequested(Interrupted):
    """A `stop` file ended the run. `why` is what the file says; empty where it was only touched."""

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


@dataclass(slots=True)
class Interrupt:
    """Asked with `check`; set by SIGINT, SIGTERM or a file named `stop` in the run folder."""

    stop_file: Path
    received: int | None = field(default=None)

    def check(self, doing: str) -> None:
        """Raise Interrupted where somebody asked to stop. `doing` says what is on disk."""
        if self.received is not None:
            name = signal.Signals(self.received).name
            raise Interrupted(
                f"{name} received: stopped {doing}; the same command goes on from there", 128 + self.received
            )
        if self.stop_file.exists():
            why = self.stop_file.read_text("utf-8").strip()
            self.stop_file.unlink()
            said = f" ({why})" if why else ""
            raise StopRequested(
                f"{self.stop_file} found{said}: stopped {doing}; the same command goes on from there", why
            )


@contextmanager
def watching(run_folder: Path) -> Iterator[Interrupt]:
    """Turn signals into a flag while the block runs; a second one of the same kind ends the process at once."""
    interrupt = Interrupt(run_folder / "stop")

    def receive(number: int, _: FrameType | None) -> None:
        interrupt.received = number
        signal.signal(number, signal.SIG_DFL)

    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, receive)
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
