"""The numbers in `report.html`, and the first at which the pages of two runs differ.

Names, folders and times of two runs differ, so their pages do; what was computed is in the page as data.
"""

from __future__ import annotations

from pathlib import Path

from tunix_rt.files import JsonObject
from tunix_rt.report.html.embed import unpacked
from tunix_rt.runs.diff import first_in_values

PAGE = "report.html"
CLOCK = ("speed",)
"""Charts of what was measured with a clock."""


def first_difference_of_pages(there: Path, here: Path) -> str | None:
    """The first number or text of two pages that differs, in words; None if there is none, or no page `there` (older
    runs)."""
    if not there.exists():
        return None
    if not here.exists():
        return f"{PAGE}: missing here"
    return first_in_values(PAGE, numbers(there.read_text("utf-8")), numbers(here.read_text("utf-8")))


def numbers(page: str) -> JsonObject:
    """The `answers`, and the `charts` by their id, that a page shows. Raises DataError: it has none."""
    charts = {chart["id"]: chart for chart in unpacked(page, "charts") if chart["id"] not in CLOCK}
    return {"answers": unpacked(page, "answers"), "charts": charts}
