"""Hands members to a launcher and supervises them: each outcome is reported at once, none is lost with a worker."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

from tunix_rt.errors import MachineError, TunixError
from tunix_rt.runs.sweep import MemberRecord, SweepFolder
from tunix_rt.sweeps.ranking import announce
from tunix_rt.terminal import say, warn

GLANCE = 0.2
"""Seconds between two checks of the members' records."""
LOST_SECONDS = 15.0
"""Seconds without a heartbeat after which a member counts as unsupervised."""
ATTEMPTS = 3
"""How often members that a broken launcher dropped are handed over again."""
ENDED = ("finished", "pruned", "failed")

Watch = Callable[[MemberRecord], None]
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


def launch(sweep: SweepFolder, launcher: Any, members: Sequence[MemberRecord], first: int, watch: Watch) -> None:
    """Run members through a Hydra launcher until each has ended, or the sweep was asked to stop.

    Members whose config is wrong fail here. Raises MachineError if the launcher cannot start any.
    """
    for member in members:
        sweep.forget(member.key)
        if member.state == "failed":
            _fail(sweep, member)
    waiting = [member for member in members if member.state != "failed"]
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
                why = f"the launcher gave it up: {trouble or 'no reason given'}"
                _fail(sweep, replace(member, state="failed", reason=why))


def _fail(sweep: SweepFolder, record: MemberRecord) -> None:
    sweep.write(record)
    announce(sweep, record)


def _hand_over(
    sweep: SweepFolder, launcher: Any, members: Sequence[MemberRecord], first: int, watch: Watch
) -> str | None:
    """One call of the launcher; returns what went wrong with the launcher itself, if anything did."""

    def cared_for(key: str) -> bool:
        running = (record := sweep.read(key)) is not None and record.state == "running"
        return running and sweep.seconds_since_heartbeat(key) < LOST_SECONDS

    with _monitored(sweep, [member.key for member in members], watch):
        try:
            launcher.launch([list(member.overrides) for member in members], initial_job_idx=first)
        except TunixError:
            raise
        except Exception as error:  # a third-party launcher may raise anything
            while any(cared_for(member.key) for member in members):
                time.sleep(GLANCE)
            return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return None


@contextmanager
def _monitored(sweep: SweepFolder, keys: Sequence[str], watch: Watch) -> Iterator[None]:
    """Meanwhile, a thread announces changes in the members' records, and calls `watch` for running members."""
    over, seen = threading.Event(), dict[str, tuple[str, str | None]]()

    def look() -> None:
        if "stop" not in seen and (why := sweep.asked_to_stop()) is not None:
            seen["stop"] = ("asked", why)
            say(f"{why}: the members that run save their work and end (again: at once)")
        for record in filter(None, map(sweep.read, keys)):
            if record.state == "running":
                watch(record)
            if seen.get(record.key) != (record.state, record.reason):
                seen[record.key] = (record.state, record.reason)
                if record.pid != os.getpid():
                    announce(sweep, record)

    def look_until_over() -> None:
        while not over.wait(GLANCE):
            look()
        look()

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look_until_over)
        try:
            yield
        finally:
            over.set()
    looking.result()
