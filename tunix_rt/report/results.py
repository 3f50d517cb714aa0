"""What text, tables and figures show of a run, read from its folder."""

from __future__ import annotations

from dataclasses import dataclass

from tunix_rt.files import JsonObject, read_record
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.log import MetricsLog


@dataclass(frozen=True, slots=True)
class Results:
    """What a run has so far; a file that is missing is empty here."""

    run: RunFolder
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
        return cls(run, read_record(run.metrics), read_record(run.baseline_metrics), trained, log)
