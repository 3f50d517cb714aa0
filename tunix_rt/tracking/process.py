"""The load of a run's process, measured from outside and recorded in `system.jsonl`."""

from __future__ import annotations

import time
from contextlib import suppress
from threading import Lock

import psutil

from tunix_rt.files import append_line
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.liveness import living
from tunix_rt.runs.log import whole_lines
from tunix_rt.tracking.tail import SYSTEM

EVERY = 5.0
"""Seconds between two samples."""


class Loads:
    """Samples of the runs that several threads send: each is taken once, by whichever comes first."""

    def __init__(self) -> None:
        self._lock, self._recorders = Lock(), dict[RunFolder, LoadRecorder]()

    def record(self, run: RunFolder) -> None:
        """Append a sample of a run if one is due."""
        with self._lock:
            if run not in self._recorders:
                self._recorders[run] = LoadRecorder(run)
            self._recorders[run].record()


class LoadRecorder:
    """Samples the load of a run's process and its children; each sample covers the time since the previous one."""

    def __init__(self, run: RunFolder) -> None:
        self._run, self._due = run, time.monotonic()
        self._last: tuple[float, float] | None = None
        first = next((record for _, record in whole_lines(run.path / SYSTEM, 0)), None)
        self._begun = float(first["time"] - first["step"] if first else run.status()["started"])

    def record(self) -> None:
        """Append a sample if one is due and the process runs on this host."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + EVERY
        if (process := living(self._run.status())) is not None:
            now = time.time()
            append_line(self._run.path / SYSTEM, {"step": round(now - self._begun), "time": now} | self.sample(process))

    def sample(self, process: psutil.Process) -> dict[str, float]:
        """CPU usage (percent; 100 is one core) and memory (10^6 bytes); the first call returns memory only."""
        memory = busy = 0.0
        children: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            children = process.children(recursive=True)
        for member in (process, *children):
            with suppress(psutil.Error):
                times = member.cpu_times()
                busy += times.user + times.system
                memory += member.memory_info().rss / 1e6
        now = time.monotonic()
        values = {"process_memory_megabytes": round(memory, 1)}
        machine = psutil.cpu_percent()  # since the last call, as below
        if self._last is not None and now > self._last[0]:
            share = 100 * (busy - self._last[1]) / (now - self._last[0])
            values |= {"process_cpu_percent": round(max(share, 0.0), 1), "machine_cpu_percent": machine}
        self._last = now, busy
        return values
