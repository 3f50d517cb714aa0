"""A launcher's worker: starts its member in a process of its own, and outlives what kills it.

The worker only waits, so that it survives what ends its member (a signal, the kernel out of memory) and can report it.
A member of several tasks (SLURM) has a worker in each; the one of rank 0 supervises, the others start followers.

What a signal means is for the launcher to say: on SIGUSR2, submitit puts the job back into the queue. Its handler is
called once the member has saved, and the process then ends without a result: the job goes on, or was cancelled.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

from tunix_rt.backends.processes.world import World
from tunix_rt.files import write_json
from tunix_rt.runs.secrets import URI_VARIABLE, mask_values
from tunix_rt.runs.sweep import MemberRecord, SweepFolder, key_of

GLANCE = 0.2
"""Seconds between two checks of a member's process."""
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
"""With these a scheduler warns that the job ends soon; a process that does not expect them dies of them."""


@dataclass(slots=True)
class _Signals:
    """The signal that asked this process to end, and the handlers that the launcher had set."""

    handlers: dict[int, Callable[[int, FrameType | None], Any]] = field(default_factory=dict)
    received: signal.Signals | None = None
    save: Callable[[], None] = lambda: None
    """Asks the member to save and end."""

    def receive(self, number: int, _: FrameType | None) -> None:
        if self.received is None:
            self.received = signal.Signals(number)
            self.save()
        elif number in WARNINGS:  # after a SIGTERM; this one says more
            self.received = signal.Signals(number)


def supervise(sweep: SweepFolder, overrides: Sequence[str], mapping: Mapping[str, Any], directory: str) -> MemberRecord:
    """Run a member in its own process, which ends if the sweep is asked to stop or this process is gone.

    Raises SystemExit if a signal ended it before it was done.
    """
    key, rank = key_of(overrides), World.from_environment().rank
    record = MemberRecord(tuple(overrides), "running", None)
    if rank == 0:
        sweep.forget(key)  # what an earlier attempt of this job left
        write_json(sweep.request(key), {"overrides": list(overrides), "config": mask_values(dict(mapping))})
    with _listening() as signals:
        process = _start(sweep, key, rank, str(mapping["tracking"]["uri"]), directory)
        if rank > 0:
            process.wait()  # it ends with the leader
        else:
            record = _watch(sweep, replace(record, pid=process.pid), process, signals, directory)
        done = record.state in ("finished", "pruned")  # what fails while it is ended may be the signal's doing
        if signals.received and not done and sweep.asked_to_stop() is None:
            _leave(sweep, record, signals, rank)
    return record


def _start(sweep: SweepFolder, key: str, rank: int, uri: str, directory: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tunix_rt.sweeps.member", str(sweep.path), key]
    env = os.environ | {URI_VARIABLE: uri}  # the file has it without the password
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WARNINGS)  # which it inherits: it is told through its input
    try:
        with sweep.log(key if rank == 0 else f"{key}.{rank}").open("ab") as log:
            streams: Any = {"stdin": subprocess.PIPE, "stdout": log, "stderr": log, "bufsize": 0}
            return subprocess.Popen(command, cwd=directory, start_new_session=True, env=env, **streams)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watch(
    sweep: SweepFolder, started: MemberRecord, process: subprocess.Popen[bytes], signals: _Signals, directory: str
) -> MemberRecord:
    """Wait for the member's end; returns how it ended."""
    assert process.stdin is not None
    signals.save = process.stdin.close
    key = started.key
    while (code := process.poll()) is None:
        if signals.received is not None or sweep.asked_to_stop() is not None:
            process.stdin.close()
        time.sleep(GLANCE)
        sweep.heartbeat(key)
    record = sweep.read(key) or started
    if record.state == "running":  # it was killed before it could record its end
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        reason = f"its process was ended by {name}; what it printed is in {os.path.relpath(sweep.log(key), directory)}"
        record = replace(record, state="interrupted" if process.stdin.closed else "failed", reason=reason)
        sweep.write(record)
    return record


def _leave(sweep: SweepFolder, record: MemberRecord, signals: _Signals, rank: int) -> None:
    """Let the launcher act on the signal, and end this process without a result; with one if the launcher refuses."""
    assert signals.received is not None
    how = f"{signals.received.name} received: {record.reason if record.state == 'failed' else 'saved'}"
    said = replace(record, state="interrupted", reason=f"{how}; it goes on when its job starts again")
    if rank == 0:
        sweep.write(said)
    try:
        signals.handlers[signals.received](signals.received, None)
    except Exception as error:  # a third-party launcher may raise anything
        if rank == 0:
            sweep.write(replace(said, reason=f"{how}. {error}"))
        return
    raise SystemExit(128 + signals.received)


@contextmanager
def _listening() -> Iterator[_Signals]:
    """While the block runs, signals that the launcher handles ask the member to save, and nothing else."""
    signals = _Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches everyone at a terminal; the sweep forwards it
    for number in (signal.SIGTERM, *WARNINGS):
        if callable(handler := signal.getsignal(number)):
            signals.handlers[number] = handler
            signal.signal(number, signals.receive)
    try:
        yield signals
    finally:
        for expected, handler in signals.handlers.items():
            signal.signal(expected, handler)
