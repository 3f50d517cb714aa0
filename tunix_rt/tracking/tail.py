"""The logs of a run as metric points: what is new since a byte offset, complete lines only.

`metrics.jsonl` has no clock values; the time of its points comes from `timings.jsonl`, so that sending again sends
identical points, which a store keeps once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tunix_rt.files import JsonObject
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.log import whole_lines

METRICS, TIMINGS, SYSTEM = "metrics.jsonl", "timings.jsonl", "system.jsonl"
PREFIX = {TIMINGS: "timings/", SYSTEM: "system/"}
"""Key prefixes for the logs that carry their own `time`. MLflow shows `system/…` on a separate page."""


class Point(NamedTuple):
    """One value of one metric."""

    key: str
    step: int
    time: int
    """Unix milliseconds."""
    value: float


class RunLogs:
    """The three logs of a run."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._times: dict[int, int] = {}
        self._times_offset = 0

    def files(self) -> dict[str, Path]:
        """The logs by name. What another run has trained is sent with that one."""
        trained, own = self._run.metrics_log.parent, self._run.path
        place = trained if trained.is_relative_to(own) else own
        return {METRICS: place / METRICS, TIMINGS: place / TIMINGS, SYSTEM: own / SYSTEM}

    def new(self, sent: Mapping[str, int], ended: bool, most: int = 5000) -> tuple[list[Point], dict[str, int]]:
        """Points behind the offsets `sent` (bytes, by file name), about `most`, and the offsets once they are sent.

        A line of `metrics.jsonl` is held back until the time of its step is known or the run has `ended`.
        """
        files = self.files()
        for offset, record in whole_lines(files[TIMINGS], self._times_offset):
            self._times.setdefault(record["step"], _milliseconds(record))
            self._times_offset = offset
        points: list[Point] = []
        offsets = {}
        for name, file in files.items():
            offsets[name] = sent.get(name, 0)
            for behind, record in whole_lines(file, offsets[name]):
                time = self._time(record["step"], ended) if name == METRICS else _milliseconds(record)
                if time is None or len(points) >= most:
                    break
                points += _points(record, time, PREFIX.get(name, ""))
                offsets[name] = behind
        return points, offsets

    def _time(self, step: int, ended: bool) -> int | None:
        """The time of the step; if a kill left none, that of the next step that has one, else the last known."""
        if step in self._times:
            return self._times[step]
        later = [known for known in self._times if known > step]
        if later:
            return self._times[min(later)]
        return max(self._times.values(), default=0) if ended else None


def _milliseconds(record: JsonObject) -> int:
    return round(1000 * float(record.get("time", 0.0)))


def _points(record: JsonObject, time: int, prefix: str) -> list[Point]:
    return [
        Point(prefix + key, record["step"], time, float(value))
        for key, value in record.items()
        if key not in ("step", "time") and isinstance(value, int | float) and not isinstance(value, bool)
    ]
