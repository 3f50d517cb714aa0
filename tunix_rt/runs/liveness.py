"""Whether the process that a record names is alive, on this host or on another that shares the file system.

On this host the operating system is asked. Of another host nothing is known but the record's heartbeat: the time at
which its file was last touched, which the process that works renews.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import psutil

from tunix_rt.files import JsonObject

HEARTBEAT = 10.0
"""Seconds between two heartbeats."""
STALE = 60.0
"""Seconds without one after which a process of another host counts as dead."""
CLOCK_SLACK = 1.0
"""Seconds by which two processes may read another start time of a third (the kernel's clock is adjusted)."""


def this_process() -> JsonObject:
    """What a record says of the process that works: `is_alive` finds it again."""
    return named(psutil.Process())


def named(process: psutil.Process) -> JsonObject:
    """A record of a process of this host, by which `living` finds it again."""
    facts = {"pid": process.pid, "process_started": process.create_time()}
    return {"host": platform.node(), "boot": _boot(), **facts}


@cache
def _boot() -> str:
    """This start of this host: a process from before a reboot is dead, whoever has its number now."""
    file = Path("/proc/sys/kernel/random/boot_id")
    return file.read_text("ascii").strip() if file.exists() else f"{psutil.boot_time():.0f}"


def is_local(record: JsonObject) -> bool:
    """Whether it names a process of this host; a record of an earlier version does not say, and was."""
    return bool(record.get("host", platform.node()) == platform.node())


def living(record: JsonObject) -> psutil.Process | None:
    """The process of this host that a record names; None where it has ended.

    A zombie, which nobody has waited for yet, has ended; a later process with the same number is another one.
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
def heartbeat(file: Path) -> Iterator[None]:
    """Touch a record, while the block runs, so that other hosts see that somebody works."""
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
