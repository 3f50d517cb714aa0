"""What is compared: a number of each item of `items.jsonl`, by the name that its mean has in `metrics.json`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tunix_rt.errors import InputError
from tunix_rt.files import JsonObject
from tunix_rt.traces.prediction import NO_REFERENCE, verdict

Value = Callable[[JsonObject], float | None]


@dataclass(frozen=True, slots=True)
class Metric:
    """A number of each item; None where an item does not have it."""

    name: str
    value: Value
    better: int = 0
    """1: larger is better; -1: smaller is better; 0: neither."""
    rate: bool = True
    """Its values are in [0, 1]; differences are given in percentage points."""
    of_prompt: Callable[[Sequence[float]], float] | None = None
    """The number of a prompt from those of its samples; None: their mean."""

    @property
    def unit(self) -> str:
        return "points" if self.rate else self.name.removesuffix(".mean").rpartition(".")[2].replace("_", " ")

    def amount(self, value: float) -> str:
        """A difference without its sign and unit."""
        return f"{100 * abs(value):.1f}" if self.rate else f"{abs(value):.4g}"

    def signed(self, value: float) -> str:
        """A difference with its sign; none for what is shown as 0."""
        amount = self.amount(value)
        return amount if float(amount) == 0 else f"{'-' if value < 0 else '+'}{amount}"

    def shown(self, value: float) -> str:
        """A mean of its values."""
        return f"{100 * value:.1f} %" if self.rate else f"{value:.4g}"


def _steps(item: JsonObject, number: Callable[[JsonObject], float]) -> float | None:
    """A number of the checked steps; None without any."""
    checks = item.get("step_checks") or {}
    return number(checks) if checks.get("num_checked") else None


METRICS = {
    "accuracy": Metric("accuracy", verdict, 1),
    "contains_answer": Metric(
        "contains_answer", lambda item: None if item["reason"] == NO_REFERENCE else item["contains_answer"], 1
    ),
    "stop_rate": Metric("stop_rate", lambda item: item["finish_reason"] == "stop", 1),
    "malformed_rate": Metric("malformed_rate", lambda item: item["malformed"], -1),
    "error_rate": Metric("error_rate", lambda item: item["finish_reason"] == "error", -1),
    "ambiguous_rate": Metric("ambiguous_rate", lambda item: item.get("ambiguous"), -1),
    "completion_tokens.mean": Metric(
        "completion_tokens.mean",
        lambda item: None if item["finish_reason"] == "error" else item["num_new_tokens"],
        rate=False,
    ),
    "steps.checked": Metric("steps.checked", lambda item: bool((item.get("step_checks") or {}).get("num_checked")), 1),
    "steps.all_steps_right": Metric(
        "steps.all_steps_right", lambda item: _steps(item, lambda checks: checks["num_wrong"] == 0), 1
    ),
    "steps.right": Metric(
        "steps.right", lambda item: _steps(item, lambda checks: 1 - checks["num_wrong"] / checks["num_checked"]), 1
    ),
}
"""`steps.right`: the share of an item's checked steps that are right. A step metric counts where both have steps."""
SHORT = {
    "completion_tokens": "completion_tokens.mean",
    "tokens": "completion_tokens.mean",
    "correct": "accuracy",
    "malformed": "malformed_rate",
    "ambiguous": "ambiguous_rate",
}
"""Other names of these; the last ones are an item's own keys, of which it is known whether more is better."""


def metric_of(name: str, items: Iterable[JsonObject]) -> Metric:
    """The metric of that name: one of `METRICS`, `pass_at.K`, `scores.SCORER`, `slices.KEY.VALUE`, or any number of an
    item by its dotted key (`scores.text.word_f1`, `step_checks.num_steps`).

    Raises InputError naming those there are, if no item has it.
    """
    known = METRICS.get(SHORT.get(name, name))
    found = known or _pass_at(name) or _scorer(name, items) or _slice(name) or _any(name, items)
    if not any(found.value(item) is not None for item in items):
        numbers = sorted({key for item in items for key in _numbers(item, "")} - {"sample"})
        there = ", ".join([*METRICS, "pass_at.K", "scores.NAME", *numbers])
        raise InputError(f"metric {name!r}: no item has it; there are: {there}")
    return found


def _pass_at(name: str) -> Metric | None:
    """Unbiased pass@k of a prompt (arXiv 2107.03374): 1 - C(n - c, k) / C(n, k), with c of n samples right."""
    head, _, k = name.partition(".")
    if head != "pass_at" or not k.isdigit() or k == "0":
        return None

    def of_prompt(values: Sequence[float]) -> float:
        n, c = len(values), round(sum(values))
        if n < int(k):
            raise InputError(f"{name}: a prompt has {n} samples only")
        return 1 - math.comb(n - c, int(k)) / math.comb(n, int(k))

    return Metric(name, METRICS["accuracy"].value, 1, of_prompt=of_prompt)


def _scorer(name: str, items: Iterable[JsonObject]) -> Metric | None:
    head, _, scorer = name.partition(".")
    if head != "scores" or not any(scorer in item.get("scores", {}) for item in items):
        return None
    return Metric(name, lambda item: item["scores"].get(scorer, {}).get("correct"), 1)


def _slice(name: str) -> Metric | None:
    """The accuracy of the items of one slice."""
    if not name.startswith("slices."):
        return None

    def value(item: JsonObject) -> float | None:
        names = [f"slices.{key}.{group}" for key, group in item["slices"].items()]
        return METRICS["accuracy"].value(item) if name in names else None

    return Metric(name, value, 1)


def _any(name: str, items: Iterable[JsonObject]) -> Metric:
    """Any number: a larger one is better if a scorer gave it."""

    def value(item: JsonObject) -> float | None:
        found: Any = item
        for key in name.split("."):
            found = found.get(key) if isinstance(found, dict) else None
        return found if isinstance(found, int | float) else None

    values = [found for item in items if (found := value(item)) is not None]
    rate = name.startswith("scores.") or all(isinstance(found, bool) for found in values)
    return Metric(name, value, 1 if name.startswith("scores.") else 0, rate and all(0 <= v <= 1 for v in values))


def _numbers(value: JsonObject, prefix: str) -> Iterable[str]:
    for key, part in value.items():
        if isinstance(part, dict):
            yield from _numbers(part, f"{prefix}{key}.")
        elif isinstance(part, int | float):
            yield f"{prefix}{key}"
