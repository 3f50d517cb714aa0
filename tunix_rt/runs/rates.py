"""The numbers of a `metrics.json`, found by their dotted keys. Does not know how they were computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunix_rt.errors import InputError
from tunix_rt.files import JsonObject


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval of a rate, both ends in [0, 1]."""

    low: float
    high: float


TITLES = {
    "accuracy": "right answers",
    "majority": "right by majority vote",
    "greedy": "right greedily",
    "stop_rate": "stopped by itself",
    "malformed_rate": "malformed",
    "error_rate": "failed",
    "ambiguous_rate": "several answers marked",
    "contains_answer": "contain the answer",
}
"""Display names of rates of `metrics.json`; any other rate is shown by its key."""


LESS_IS_BETTER = frozenset({"malformed_rate", "error_rate", "ambiguous_rate"})
"""Rates of what went wrong."""


def rates(metrics: JsonObject) -> dict[str, JsonObject]:
    """Every rate of a `metrics.json` but those of parts: name → value, low, high, n. First those at its top, in order,
    then each further scorer's and pass@k for k = 1, 2, 4, 8, … and the largest."""
    parts = {"value", "low", "high", "n"}
    found = {name: record for name, record in metrics.items() if isinstance(record, dict) and parts <= record.keys()}
    scores = metrics.get("scores", {})
    found |= {f"right by {name}": record for name, record in scores.items() if parts <= record.keys()}
    passed = {int(k): record for k, record in metrics.get("pass_at", {}).items()}
    shown = [k for k in sorted(passed) if k & (k - 1) == 0 or k == max(passed)]
    return found | {f"pass@{k}": passed[k] for k in shown}


def rate_title(name: str) -> str:
    """The display name of a rate."""
    return TITLES.get(name, name.removesuffix("_rate").replace("_", " "))


def shown(value: float) -> str:
    """A rate in per cent, any other number with four digits."""
    return f"{100 * value:.1f} %" if 0 <= value <= 1 else f"{value:.4g}"


def lookup(metrics: JsonObject, key: str) -> float:
    """The number at a dotted key, as `number` gives it. Raises InputError listing the keys that hold a number."""
    value = number(metrics, key)
    if value is None:
        raise InputError(f"metrics.json has no number {key!r}; there are: {', '.join(_keys(metrics))}")
    return value


def number(metrics: JsonObject, key: str) -> float | None:
    """The number at a dotted key (`accuracy`, `pass_at.4`, `slices.category.easy`); for a rate, its value.

    None if there is none.
    """
    found = _find(metrics, key.split("."))
    value = found.get("value") if isinstance(found, dict) else found
    return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)


def interval(metrics: JsonObject, key: str) -> Interval | None:
    """The 95 % interval of the rate at a dotted key; None if that is not a rate."""
    found = _find(metrics, key.split("."))
    if not isinstance(found, dict) or found.get("low") is None or found.get("high") is None:
        return None
    return Interval(float(found["low"]), float(found["high"]))


def _find(node: Any, path: list[str]) -> Any:
    """The value at `path`; a key may itself contain dots (the value `0.5` of a slice)."""
    if not path:
        return node
    for length in range(len(path), 0, -1):
        key = ".".join(path[:length])
        if isinstance(node, dict) and key in node and (found := _find(node[key], path[length:])) is not None:
            return found
    return None


def _keys(node: JsonObject, prefix: str = "") -> list[str]:
    keys = []
    for key, value in node.items():
        if isinstance(value, dict) and "value" not in value:
            keys += _keys(value, f"{prefix}{key}.")
        elif (value["value"] if isinstance(value, dict) else value) is not None:
            keys.append(f"{prefix}{key}")
    return keys
