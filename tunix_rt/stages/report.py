"""Stage `report`: the records of the run folder in, `report.md`, `report.html`, `figures/` and `plots/` out."""

from __future__ import annotations

from tunix_rt.report.figures import draw
from tunix_rt.report.html.page import write_page
from tunix_rt.report.markdown import write_report
from tunix_rt.report.tables import write_tables
from tunix_rt.runs.folder import RunFolder


def report(run: RunFolder, ui_command: str | None = None) -> None:
    """Draw and write what the run folder holds. `ui_command`: the command that shows the run in its tracker."""
    draw(run.path)
    write_tables(run.path)
    write_report(run.path, ui_command)
    write_page(run)
