"""`metrics.jsonl`: each step once, no clock values; `timings.jsonl`: when.

After a kill the log is ahead of the checkpoint; a replayed line must equal the recorded one and is not written
again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from tunix_rt.errors import DataError, RunError
from tunix_rt.files import JsonObject, append_line, parse_json, read_appended, sync_file

Values = Mapping[str, float]


class MetricsLog:
    """The metrics of a run by step. A step has one line per kind (`train/…`, `eval/…`)."""

    def __init__(self, metrics: Path, timings: Path, exact: bool) -> None:
        """Open the logs of a run. `exact`: a replayed step that differs is an error, else it stays as recorded."""
        self._metrics, self._timings, self._exact = metrics, timings, exact
        self._recorded: dict[tuple[int, str], dict[str, float]] = {}
        for _, line in read_appended(metrics):
            step = int(line.pop("step"))
            self._recorded[step, _kind(line)] = line

        self.last_step = max((step for step, kind in self._recorded if kind == "train"), default=0)
        """The last step that was recorded when the log was opened; 0: none."""

    def write(self, step: int, values: Values, seconds: Values) -> None:
        """Append a step's values, and their time (`time`: Unix seconds) to the other file."""
        known = self._recorded.get((step, _kind(values)))
        if known is None:
            self._recorded[step, _kind(values)] = dict(values)
            append_line(self._metrics, {"step": step, **values})
            append_line(self._timings, {"step": step, **seconds})
        elif self._exact and known != dict(values):
            name = min(key for key in {*known, *values} if known.get(key) != values.get(key))
            raise RunError(
                f"{self._metrics}: step {step} was done again and differs: {name} was {known.get(name)!r}, "
                f"is {values.get(name)!r}; resuming is not exact here (start anew with run.new=true)"
            )

    def sync(self) -> None:
        """Wait until all that was written is on the disk."""
        for file in (self._metrics, self._timings):
            if file.exists():
                sync_file(file)

    def has_evaluation(self, step: int) -> bool:
        """Whether the step's `eval/…` values are recorded."""
        return (step, "eval") in self._recorded

    def evaluations(self, last: int) -> list[tuple[int, Values]]:
        """(step, `eval/…` values) up to step `last`, in order of step: after a kill the log may be ahead."""
        return sorted((step, line) for (step, kind), line in self._recorded.items() if kind == "eval" and step <= last)

    def names(self) -> list[str]:
        """Every metric that was logged, sorted."""
        return sorted({name for line in self._recorded.values() for name in line})

    def series(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of one metric, in order of step."""
        return sorted((step, line[name]) for (step, _), line in self._recorded.items() if name in line)


def _kind(values: Values) -> str:
    return next(iter(values)).split("/")[0]


def whole_lines(path: Path, offset: int) -> Iterator[tuple[int, JsonObject]]:
    """Yields (offset after the line, its record) from `offset` on. An unfinished last line is left for the next call.

    A line that is not the record of a step is skipped: a kill may leave one. A file shorter than `offset` was started
    again and is read from its start.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        behind = offset if path.stat().st_size >= offset else 0
        file.seek(behind)
        for raw in file:
            if not raw.endswith(b"\n"):
                return
            behind += len(raw)
            with suppress(DataError):
                record = parse_json(raw, path.name)
                if isinstance(record, dict) and isinstance(record.get("step"), int):
                    yield behind, record
