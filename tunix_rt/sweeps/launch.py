"""Hands members to a launcher and supervises them: each outcome is reported at once, none is lost with a worker."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tunix_rt.errors import MachineError
from tunix_rt.runs.sweep import MemberRecord, SweepFolder
from tunix_rt.sweeps.announce import announce
from tunix_rt.sweeps.plan import Planned
from tunix_rt.terminal import say, warn

GLANCE = 0.2
"""Seconds between two checks of the members' records."""
LOST_SECONDS = 15.0
"""Seconds without a heartbeat after which a member counts as unsupervised."""
ATTEMPTS = 3
"""How often members that a broken launcher dropped are handed over again."""
ENDED = ("finished", "pruned", "failed")

Watch = Callable[[Planned], None]
"""Called repeatedly for each running member."""


@contextmanager
def stopping(sweep: SweepFolder) -> Iterator[None]:
    """SIGINT and SIGTERM ask the members to end; a second one of the same kind ends this process at once."""

    def receive(number: int, _: FrameType | None) -> None:
        sweep.ask_to_stop(signal.Signals(number).name)
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def launch(sweep: SweepFolder, launcher: Any, members: Sequence[Planned], first: int, watch: Watch) -> None:
    """Run members through a Hydra launcher until each has ended, or the sweep was asked to stop.

    Members whose config is wrong fail here. Raises MachineError if the launcher cannot start any.
    """
    for member in members:
        sweep.forget(member.key)
        if member.mistake is not None:
            _fail(sweep, member, member.mistake)
    waiting = [member for member in members if member.mistake is None]
    for attempt in range(1, ATTEMPTS + 1):
        if not waiting or sweep.asked_to_stop() is not None:
            return
        trouble = _hand_over(sweep, launcher, waiting, first, watch)
        records = [sweep.read(member.key) for member in waiting]
        if trouble is not None and not any(records) and attempt == 1 and sweep.asked_to_stop() is None:
            raise MachineError(f"the launcher starts no member: {trouble}")
        if trouble is None:
            break
        waiting = [m for m, record in zip(waiting, records, strict=True) if record is None or record.state not in ENDED]
        if waiting and attempt < ATTEMPTS and sweep.asked_to_stop() is None:
            warn(f"the launcher broke ({trouble}); its {len(waiting)} unfinished members are handed over again")
    if sweep.asked_to_stop() is None:
        for member in waiting:
            if (record := sweep.read(member.key)) is None or record.state == "running":
                _fail(sweep, member, f"the launcher gave it up: {trouble or 'no reason given'}")


def _hand_over(sweep: SweepFolder, launcher: Any, members: Sequence[Planned], first: int, watch: Watch) -> str | None:
    """One call of the launcher; returns what went wrong with the launcher itself, if anything did."""
    with _Monitor(sweep, members, watch):
        try:
            launcher.launch([list(member.overrides) for member in members], initial_job_idx=first)
        except Exception as error:  # a third-party launcher may raise anything
            trouble = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            while any(_cared_for(sweep, member) for member in members):
                time.sleep(GLANCE)
            return trouble
    return None


def _cared_for(sweep: SweepFolder, member: Planned) -> bool:
    record = sweep.read(member.key)
    return record is not None and record.state == "running" and sweep.seconds_since_heartbeat(member.key) < LOST_SECONDS


def _fail(sweep: SweepFolder, member: Planned, reason: str) -> None:
    record = MemberRecord(
        member.overrides, "failed", None if member.folder is None else str(member.folder.path), reason
    )
    sweep.write(record)
    announce(sweep, record)


class _Monitor:
    """A thread that reports changes in the members' records, and calls `watch` for running members."""

    def __init__(self, sweep: SweepFolder, members: Sequence[Planned], watch: Watch) -> None:
        self._sweep, self._members, self._watch = sweep, members, watch
        self._seen: dict[str, str] = {}
        self._over = threading.Event()
        self._error: Exception | None = None
        self._told = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._over.wait(GLANCE):
                self._look()
            self._look()
        except Exception as error:  # re-raised when the thread is joined
            self._error = error

    def _look(self) -> None:
        if not self._told and (why := self._sweep.asked_to_stop()) is not None:
            self._told = True
            say(f"{why}: the members that run save their work and end (again: at once)")
        for member in self._members:
            record = self._sweep.read(member.key)
            if record is None:
                continue
            if record.state == "running":
                self._watch(member)
            if self._seen.get(member.key) != record.state:
                self._seen[member.key] = record.state
                if record.pid != os.getpid():
                    announce(self._sweep, record)
