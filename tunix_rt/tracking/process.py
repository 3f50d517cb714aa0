"""The training process seen from outside: is it alive, how much processor and memory does it take.

Knows `status.json` and the operating system; nothing of MLflow.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import psutil

from tunix_rt.files import JsonObject

CLOCK_SLACK = 1.0
"""Seconds by which two processes may read another start time of a third (the kernel's clock is adjusted)."""


@dataclass(slots=True)
class TrainingProcess:
    """The process that `status.json` names; a later process with the same pid is another one."""

    pid: int
    started: float
    """Its start, Unix seconds (`psutil.Process.create_time`)."""
    _last: tuple[float, float] | None = field(default=None)

    @classmethod
    def of(cls, status: JsonObject) -> TrainingProcess:
        """From the contents of `status.json`."""
        return cls(int(status["pid"]), float(status["process_started"]))

    def alive(self) -> bool:
        """Whether it still runs. A zombie, which nobody has waited for yet, does not."""
        return self._process() is not None

    def sample(self) -> dict[str, float]:
        """Load since the last sample (percent, 100: one core; with children), memory (10^6 bytes).

        Empty where the process has ended, and without shares of the processor at the first call.
        """
        process = self._process()
        if process is None:
            return {}
        memory = busy = 0.0
        for member in (process, *_children(process)):
            try:
                times = member.cpu_times()
                busy += times.user + times.system
                memory += member.memory_info().rss / 1e6
            except psutil.Error:
                continue
        now = time.monotonic()
        values = {"process_memory_megabytes": round(memory, 1)}
        machine = psutil.cpu_percent()  # since the last call, as below
        if self._last is not None and now > self._last[0]:
            share = 100 * (busy - self._last[1]) / (now - self._last[0])
            values |= {"process_cpu_percent": round(max(share, 0.0), 1), "machine_cpu_percent": machine}
        self._last = now, busy
        return values

    def _process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < CLOCK_SLACK
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []
