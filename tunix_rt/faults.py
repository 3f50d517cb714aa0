"""Fault points: named places, at every write and change of state, where a test kills the process or only counts.

Enabled only by tests, through two variables; without them a point costs one comparison.

    TUNIX_RT_FAULT=NAME:COUNT[:SIGNAL]   the COUNT-th time that NAME is passed, this process gets the signal (SIGKILL)
    TUNIX_RT_FAULT_LIST=FILE             every point passed is a line of that file: a matrix is derived from a real run
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

POINT, LIST = "TUNIX_RT_FAULT", "TUNIX_RT_FAULT_LIST"
_VARYING = re.compile(r"[0-9a-f]{8,}|\d+")
"""Identities and numbers in a file's name, which differ from run to run."""


@dataclass(slots=True)
class _Armed:
    name: str
    count: int
    number: int
    list: str | None
    _passed: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reached(self, moment: str, path: Path | None) -> bool:
        """Count and list a point that is passed; returns whether it is the armed one."""
        place = "" if path is None else f" {_VARYING.sub('#', f'{path.parent.name}/{path.name}')}"
        name = moment + place
        with self._lock:
            self._passed[name] += 1
            if self.list:
                with Path(self.list).open("a", encoding="utf-8") as file:
                    file.write(f"{name}:{self._passed[name]}\n")
            return name == self.name and self._passed[name] == self.count


_armed: _Armed | None = None


def arm() -> None:
    """Read the variables (again in a process forked by a test, which has its own)."""
    global _armed
    point, listed = os.environ.get(POINT), os.environ.get(LIST)
    name, count, number = (*(point or "none:0").split(":"), str(int(signal.SIGKILL)))[:3]
    _armed = _Armed(name, int(count), int(number), listed) if point or listed else None


arm()


def point(moment: str, path: Path | None = None) -> None:
    """A place where a kill must lose nothing; `path`: the file or folder concerned."""
    if _armed is not None and _armed.reached(moment, path):
        os.kill(os.getpid(), _armed.number)


def torn(file: IO[bytes], data: bytes, path: Path) -> None:
    """A place in the middle of a write: after a kill here, half of the data is in the file."""
    if _armed is not None and _armed.reached("torn", path):
        file.write(data[: len(data) // 2])
        file.flush()
        os.kill(os.getpid(), _armed.number)
