"""The section of `report.md` on how sure the model was of its answers, and whether it was right as often."""

from __future__ import annotations

from collections.abc import Callable

from tunix_rt.files import JsonObject
from tunix_rt.report.blocks import table

KINDS = {
    "calibration": "probability of the answer",
    "self_consistency": "share of the samples that agree (prompts, by majority vote)",
}
"""Key of `metrics.json` → what its confidence is."""
Rate = Callable[[JsonObject | None], str]


def section(metrics: JsonObject, rate: Rate) -> list[str]:
    """Lines of the section, from `metrics.json`; `rate` shows a rate."""
    return [line for key, title in KINDS.items() if key in metrics for line in _one(metrics[key], title, rate)]


def _one(record: JsonObject, title: str, rate: Rate) -> list[str]:
    errors = f"Expected calibration error {record['ece']:.3f}, Brier score {record['brier']:.3f}, n = {record['n']:,}."
    bins = [
        [f"{one['low']:.1f} to {one['high']:.1f}", f"{one['confidence']:.3f}", rate(one["accuracy"])]
        for one in record["bins"]
    ]
    sure = [
        [f"{100 * one['coverage']:.0f} %", f"{one['threshold']:.3f}", rate(one["accuracy"])]
        for one in record["selective"]
    ]
    lines = table([title, "mean", "right answers"], bins)
    return [*lines, errors, "", *table(["of the answers, the most certain", "at least", "right answers"], sure)]
