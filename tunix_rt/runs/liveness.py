"""Whether the process that a record names is alive, on this host or on another that shares the file system.

On this host the operating system is asked. For another host, only the record's heartbeat is known: the time at which
its file was last touched by the working process.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import psutil

from tunix_rt.errors import InUse
from tunix_rt.files import JsonObject

HEARTBEAT = 10.0
"""Seconds between two heartbeats."""
STALE = 60.0
"""Seconds without a heartbeat after which a process on another host counts as dead."""
CLOCK_SLACK = 1.0
"""Seconds by which the start time of a process may differ between two readers (the kernel's clock is adjusted)."""


def this_process() -> JsonObject:
    """The record of this process, by which `is_alive` finds it again."""
    return named(psutil.Process())


def named(process: psutil.Process) -> JsonObject:
    """The record of a process on this host, by which `living` finds it again."""
    facts = {"pid": process.pid, "process_started": process.create_time()}
    return {"host": platform.node(), "boot": _boot(), **facts}


@cache
def _boot() -> str:
    """Identifies the current boot of this host: a process from before a reboot is dead, even if its pid is in use."""
    file = Path("/proc/sys/kernel/random/boot_id")
    return file.read_text("ascii").strip() if file.exists() else f"{psutil.boot_time():.0f}"


def is_local(record: JsonObject) -> bool:
    """Whether it names a process on this host; a record of an earlier version does not say, and counts as local."""
    return bool(record.get("host", platform.node()) == platform.node())


def living(record: JsonObject) -> psutil.Process | None:
    """The process on this host that a record names; None if it has ended.

    A zombie, which nobody has waited for yet, has ended; a later process with the same pid is another one.
    """
    if not is_local(record) or record.get("boot", _boot()) != _boot():
        return None
    try:
        process = psutil.Process(int(record["pid"]))
        same = abs(process.create_time() - float(record["process_started"])) < CLOCK_SLACK
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def is_alive(record: JsonObject, file: Path) -> bool:
    """Whether the process that `record`, the content of `file`, names is alive."""
    return living(record) is not None if is_local(record) else seconds_since_heartbeat(file) < STALE


def seconds_since_heartbeat(file: Path) -> float:
    """Seconds since a record was written or touched."""
    return max(time.time() - file.stat().st_mtime, 0.0)


@contextmanager
def held(lock: Path, refusal: Callable[[], str]) -> Iterator[None]:
    """Hold a lock file. Raises InUse, with the text that `refusal` gives, if another process has it."""
    from filelock import FileLock, Timeout

    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        claim = FileLock(lock, timeout=0).acquire()
    except Timeout:
        raise InUse(refusal()) from None
    with claim:
        yield


@contextmanager
def heartbeat(file: Path) -> Iterator[None]:
    """Touch a record while the block runs, so that other hosts see that somebody is working."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT):
            with suppress(OSError):
                os.utime(file)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
