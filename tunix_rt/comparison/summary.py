"""Two runs in five lines: what was changed, what came of it, whether that is beyond chance, and whether data and code
are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunix_rt.comparison.compare import Comparison, compared
from tunix_rt.comparison.sides import SEEDS, Side, changes
from tunix_rt.errors import InputError
from tunix_rt.files import read_record
from tunix_rt.runs.diff import Section
from tunix_rt.runs.folder import RunFolder

SHOWN = 4
LONGEST = 40
"""Differing keys that a line names, and characters of a value."""


def summary(left: RunFolder, right: RunFolder, sections: Sequence[Section]) -> dict[str, str]:
    """Name → text of each line; `sections`: those of `runs.diff.side_by_side`. Raises DataError: a damaged record."""
    found: Comparison | None = None
    try:
        found = compared((Side((left,)), Side((right,))))
        verdict = found.sentence()
    except InputError as reason:
        verdict = f"cannot be compared: {reason}"
    by_name = {section.name: section for section in sections}
    return {
        "changed": _changed(left, right),
        "accuracy": _result(left, right, found),
        "verdict": verdict,
        "data": _same(by_name["data"]),
        "code": _same(by_name["code"]),
    }


def _changed(left: RunFolder, right: RunFolder) -> str:
    """Config keys that may change a result; of seeds that follow `seed`, only that one."""
    found = changes(left, right)
    followers = [key for key in SEEDS[1:] if found.get(key) == found.get("seed")]
    shown = [f"{key}: {_cut(a)} → {_cut(b)}" for key, (a, b) in found.items() if key not in followers]
    return _some(shown) or "nothing that changes a result"


def _result(left: RunFolder, right: RunFolder, found: Comparison | None) -> str:
    values = [read_record(run.metrics).get("accuracy", {}).get("value") for run in (left, right)]
    text = " → ".join("none" if value is None else f"{100 * value:.1f} %" for value in values)
    if found is None:
        return text
    low, high = (found.metric.signed(end) for end in found.estimate.interval())
    return f"{text}: {found.metric.signed(found.estimate.difference)} {found.metric.unit} [{low}, {high}]"


def _same(section: Section) -> str:
    shown = [f"{key}: {_cut(a)} → {_cut(b)}" for key, (a, b) in section.different.items()]
    return _some(shown) or "the same"


def _some(shown: Sequence[str]) -> str:
    more = f"; {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return "; ".join(shown[:SHOWN]) + more


def _cut(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
