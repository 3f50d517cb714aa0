"""The section on interventions of `report.md`: how far the answers follow from the steps."""

from __future__ import annotations

from collections.abc import Callable

from tunix_rt.files import JsonObject
from tunix_rt.report.blocks import table

KINDS = {
    "truncated": "cut after k steps",
    "filler": "k steps of filler",
    "corrupted": "a mistake in step k",
}
"""Kind of intervention → its title; k counts steps."""
MOST_STEPS = 16


def section(record: JsonObject, rate: Callable[[JsonObject | None], str]) -> list[str]:
    """Lines of the section, from `faithfulness` of `metrics.json`; `rate` shows a rate. Steps count from 1 here."""
    kinds = [kind for kind in KINDS if record.get(kind)]
    if not kinds:
        return []
    lines = [_summary(record), ""]
    areas = [[KINDS[kind], rate(record["area_over_curve"][kind])] for kind in kinds]
    lines += table(["", "area over the curve: 0 % if the answer stays, 100 % if it never does"], areas)
    for kind in kinds:
        columns = [KINDS[kind], "same answer", "right"]
        columns += ["the wrong number is used"] if kind == "corrupted" else []
        lines += table(columns, [_row(record, kind, k, rate) for k in _places(record[kind])])
    return lines


def _places(curve: JsonObject) -> list[str]:
    return sorted(curve, key=int)[:MOST_STEPS]


def _row(record: JsonObject, kind: str, k: str, rate: Callable[[JsonObject | None], str]) -> list[str]:
    place = str(int(k) + (kind == "corrupted"))
    cells = [place, rate(record[kind][k]), rate(record["right"][kind].get(k))]
    return [*cells, rate(record["followed"].get(k))] if kind == "corrupted" else cells


def _summary(record: JsonObject) -> str:
    notes = [f"The steps of {record['prompts']:,} completions were changed, and the model went on"]
    if record["failed"]:
        notes.append(f"{record['failed']:,} changes failed")
    if record["without_number"]:
        notes.append(f"{record['without_number']:,} steps have no number to make wrong")
    return f"{'; '.join(notes)}. If the answer stays the same, it did not follow from those steps."
