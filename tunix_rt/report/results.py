"""The results of a run that text, tables and figures show, read from its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunix_rt.files import JsonObject, read_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.log import MetricsLog


@dataclass(frozen=True, slots=True)
class Results:
    """What a run has so far; a file that is missing is empty here."""

    metrics: JsonObject
    before: JsonObject
    """The metrics before training."""
    trained: RunFolder
    """The run that did the training: this one, or a sibling."""
    log: MetricsLog
    """The log of that training."""

    @classmethod
    def of(cls, run: RunFolder) -> Results:
        """Raises DataError if a file is damaged."""
        trained = RunFolder(run.model.parent)
        log = MetricsLog(trained.metrics_log, trained.timings_log, exact=False)
        return cls(read_object(run.metrics), read_object(run.baseline_metrics), trained, log)


def read_object(path: Path) -> JsonObject:
    """A JSON object; empty if there is no file."""
    return dict(read_json(path)) if path.exists() else {}
