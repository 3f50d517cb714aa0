"""Stage `report`: the records of the run folder in, `report.md`, `figures/` and `plots/` out."""

from __future__ import annotations

from dataclasses import dataclass

from tunix_rt.report.figures import draw
from tunix_rt.report.markdown import write_report
from tunix_rt.report.tables import write_tables
from tunix_rt.runs.folder import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRequest:
    """The run to report on."""

    run: RunFolder
    ui_command: str | None = None
    """Command that shows the run in its tracker."""


def report(request: ReportRequest) -> None:
    """Draw and write; everything shown comes from the run folder."""
    folder = request.run.path
    draw(folder)
    write_tables(folder)
    write_report(folder, request.ui_command)
