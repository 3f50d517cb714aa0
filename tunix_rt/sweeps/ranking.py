"""Members of a sweep, ranked by the declared metric, as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunix_rt.files import JsonObject
from tunix_rt.runs.rates import interval, lookup


@dataclass(frozen=True, slots=True)
class Member:
    """One member: what it changed, and how it ended."""

    overrides: tuple[str, ...]
    folder: str | None
    metrics: JsonObject | None
    error: str | None


def varying(members: Sequence[Member]) -> list[str]:
    """The overrides' keys whose values differ between members."""
    pairs = [dict(text.lstrip("+").split("=", 1) for text in member.overrides if "=" in text) for member in members]
    keys = dict.fromkeys(key for pair in pairs for key in pair)
    return [key for key in keys if len({pair.get(key) for pair in pairs}) > 1]


def ranked(members: Sequence[Member], metric: str, direction: str) -> list[Member]:
    """Best first; failed members last, in their own order."""
    sign = -1.0 if direction == "maximize" else 1.0
    done = [member for member in members if member.metrics is not None]
    failed = [member for member in members if member.metrics is None]
    return sorted(done, key=lambda member: sign * lookup(member.metrics or {}, metric)) + failed


def rows(members: Sequence[Member], metric: str, direction: str) -> tuple[list[str], list[list[str]]]:
    """Column names and rows: rank, what varied, the metric with its 95 % interval, stop rate, folder or failure."""
    keys = varying(members)
    shown: list[list[str]] = []
    for rank, member in enumerate(ranked(members, metric, direction), start=1):
        values = dict(text.lstrip("+").split("=", 1) for text in member.overrides if "=" in text)
        changed = [values.get(key, "") for key in keys]
        if member.metrics is None:
            shown.append(["-", *changed, "failed", "", "", (member.error or "").splitlines()[0]])
            continue
        between = interval(member.metrics, metric)
        spread = f"[{_show(between.low)}, {_show(between.high)}]" if between else ""
        stops = _show(lookup(member.metrics, "stop_rate"))
        shown.append([str(rank), *changed, _show(lookup(member.metrics, metric)), spread, stops, member.folder or ""])
    return ["rank", *keys, metric, "95 % interval", "stop rate", "run"], shown


def _show(value: float) -> str:
    return f"{100 * value:.1f} %" if 0 <= value <= 1 else f"{value:.4g}"
