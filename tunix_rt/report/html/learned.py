"""Charts of what was learned from rewards or preferences, over the steps."""

from __future__ import annotations

from tunix_rt.files import JsonObject
from tunix_rt.report.html.curves import Series, plain, thin, thinned
from tunix_rt.report.html.spec import BASE, chart, quantity
from tunix_rt.report.learning import ENDS, REWARD, SHARES, curve_titles
from tunix_rt.runs.log import MetricsLog

SINGLE = ("length", "entropy", "kl", "mismatch")
"""Metrics of rollouts with a chart of their own."""


def learned(log: MetricsLog) -> list[JsonObject | None]:
    """The charts, the most important first; None for what was not logged."""
    titles = curve_titles(log)
    parts = {name.removeprefix(f"{REWARD}_"): log.series(name) for name in titles if name.startswith(f"{REWARD}_")}
    shares = {title: log.series(name) for name, title in SHARES.items()}
    preferred = {"training": log.series("preference/accuracy"), "validation": log.series("eval/preference_accuracy")}
    implicit: dict[str, Series] = {name: log.series(f"preference/{name}") for name in ("chosen", "rejected", "margin")}
    return [
        _reward(log),
        plain("components", "Components of the reward", "Before they are weighted.", parts, "mean")
        if len(parts) > 1
        else None,
        plain("shares", "Prompts and answers without use", "Of the answers of a step.", shares, None),
        plain("preferred", "Preferred answers", "Pairs in which the chosen answer is preferred.", preferred, None),
        plain("implicit", "Implicit rewards", "Of the chosen and the rejected answers.", implicit, "nats, times beta"),
        *(_single(log, f"rollout/{name}", titles) for name in SINGLE),
    ]


def _single(log: MetricsLog, name: str, titles: dict[str, str]) -> JsonObject | None:
    title, comma, unit = titles.get(name, "").partition(", ")
    return plain(name, title[:1].upper() + title[1:], "", {title: log.series(name)}, unit if comma else "tokens")


def _reward(log: MetricsLog) -> JsonObject | None:
    """The reward in a band of its intervals."""
    reward, low, high = (thin(log.series(REWARD + end)) for end in ("", *ENDS))
    if len(reward) < 2:
        return None
    below, above = dict(low), dict(high)
    rows = [{"step": step, "value": value, "low": below.get(step), "high": above.get(step)} for step, value in reward]
    band = {"y": quantity("low", "reward"), "y2": {"field": "high"}}
    tooltip = [
        {"field": "step", "format": ","},
        *({"field": name, "format": ".4g"} for name in ("value", "low", "high")),
    ]
    layers = [
        {"mark": {"type": "area", "opacity": 0.16, "color": "var(--this)"}, "encoding": band},
        {
            "mark": {"type": "line", "strokeWidth": 2, "color": "var(--this)"},
            "encoding": {"y": quantity("value", "reward"), "tooltip": tooltip},
        },
    ]
    note = f"Mean over the answers of a step, with its 95 % interval. {thinned(log.series(REWARD))}".strip()
    shared = {"data": {"values": rows}, "encoding": {"x": quantity("step", "step", integer=True)}}
    return chart("reward", "Reward", note, BASE | {"height": 260} | shared | {"layer": layers})
