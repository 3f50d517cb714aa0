"""One at a time: runs that need the same training (or the same predictions) do it once, and the others wait for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tunix_rt.runs.folder import RunFolder, all_runs
from tunix_rt.runs.interrupt import Interrupt
from tunix_rt.runs.liveness import is_local
from tunix_rt.terminal import say

POLL = 0.5
"""Seconds between two checks whether the other run has ended."""


@contextmanager
def turn(run: RunFolder, stage: str, identity: str, interrupt: Interrupt) -> Iterator[None]:
    """Claim a stage of this identity among the runs of an experiment, waiting for the run that has it.

    On one host this is a lock, which ends with its process; for a run on another host, the heartbeat shows whether
    it is still working. May raise Interrupted while waiting.
    """
    from filelock import FileLock, Timeout

    file = run.root / ".locks" / f"{run.path.parent.name}-{stage}-{identity}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    lock, announced = FileLock(file), False
    while True:
        with suppress(Timeout):
            lock.acquire(timeout=0)
        other = _worker(run, stage, identity)
        if lock.is_locked and (other is None or is_local(other.status())):  # on another host, it may have no effect
            break
        lock.release()
        if not announced:
            name = "another run" if other is None else other.name
            say(f"{stage}: waiting for {name}, which does the same just now")
            announced = True
        interrupt.check(f"before {stage}")
        time.sleep(POLL)
    try:
        yield
    finally:
        lock.release()


def _worker(run: RunFolder, stage: str, identity: str) -> RunFolder | None:
    """Another live run of the experiment that is running the stage."""
    for other in all_runs(run.root):
        record, status = other.stages().get(stage, {}), other.status()
        same = (record.get("identity"), record.get("state")) == (identity, "begun")
        if other.path.parent == run.path.parent and other != run and same and status.get("state") == "running":
            return other
    return None
