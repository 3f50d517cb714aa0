"""The charts of a run as Vega-Lite specifications with their data in them; only what has data is drawn.

Colours are variables of the page's styles (`var(--right)`), so that a chart follows dark and light. What is drawn over
the steps of training is in `curves.py` and `learned.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunix_rt.files import JsonObject
from tunix_rt.report.html.answers import Side
from tunix_rt.report.html.curves import curves
from tunix_rt.report.html.learned import learned
from tunix_rt.report.html.spec import BASE, band, chart, colour, percent, quantity, rule_and_point
from tunix_rt.report.results import Results
from tunix_rt.runs.rates import rate_title, rates
from tunix_rt.terminal import visible

MOST_STEPS = 40
"""Most step indices shown; a completion that does not end has hundreds."""
MOST_VALUES = 40
"""Most values of a slice shown, those with the fewest right answers; numbers are in their order, others worst first."""
BINS = 40
DIAGONAL = [{"x": 0, "y": 0}, {"x": 1, "y": 1}]


def charts(results: Results, side: Side, other: tuple[str, JsonObject] | None) -> list[JsonObject]:
    """Every chart: `id`, `title`, `note`, `spec`, in the order of the page. `other`: title and metrics of the model
    that the run is compared with."""
    metrics = results.metrics
    both = [("this run", metrics), *([other] if other else [])]
    found = [
        _rates(both),
        *learned(results.log),
        *(_slice(key, both) for key in metrics.get("slices", {})),
        _pass_at(both),
        _steps(both),
        *_calibration(metrics.get("calibration") or {}, OWN),
        *_calibration(metrics.get("self_consistency") or {}, VOTED),
        *_faithfulness(metrics.get("faithfulness") or {}),
        _lengths(side),
        *curves(results),
    ]
    return [one for one in found if one is not None]


def _rows(named: Mapping[str, JsonObject], title: str) -> list[JsonObject]:
    """A row for each rate that counts something; names come from data, so invisible characters are made visible."""
    return [
        {
            "name": visible(name),
            "of": visible(title),
            "value": rate["value"],
            "low": rate["low"],
            "high": rate["high"],
            "n": rate.get("n"),
        }
        for name, rate in named.items()
        if rate.get("value") is not None
    ]


Both = Sequence[tuple[str, JsonObject]]


def _compared(rows: Sequence[JsonObject], both: Both, names: Sequence[str], label: str) -> JsonObject:
    """Rates on lines of their own with their intervals, those of two models one below the other."""
    titles = [visible(title) for title, _ in both]
    y = {"field": "name", "type": "nominal", "sort": list(names), "title": None, "axis": {"labelLimit": 220}}
    offset = {"yOffset": {"field": "of", "sort": titles}} if len(both) > 1 else {}
    shared = {"y": y, **offset, "color": colour("of", titles, ["var(--this)", "var(--other)"], len(both) > 1)}
    height = max(len(names), 2) * (36 if len(both) > 1 else 28)
    return BASE | {"height": height, "data": {"values": rows}, "encoding": shared, "layer": rule_and_point("x", label)}


def _rates(both: Both) -> JsonObject | None:
    shown = [(title, {name: metrics[name] for name in metrics if name != "pass_at"}) for title, metrics in both]
    found = {title: {rate_title(name): rate for name, rate in rates(metrics).items()} for title, metrics in shown}
    rows = [row for title, named in found.items() for row in _rows(named, title)]
    names = [visible(name) for name in found["this run"]]
    note = "Shares of all answers, with 95 % Wilson intervals."
    return chart("rates", "Rates", note, _compared(rows, both, names, "share of answers")) if rows else None


def _slice(key: str, both: Both) -> JsonObject | None:
    values = both[0][1].get("slices", {})[key]
    worst = sorted((rate["value"], name) for name, rate in values.items() if rate.get("value") is not None)
    names = [name for _, name in worst[:MOST_VALUES]]
    if all(_is_number(name) for name in names):
        names.sort(key=float)
    rows = [
        row
        for title, metrics in both
        for row in _rows({n: r for n, r in metrics.get("slices", {}).get(key, {}).items() if n in names}, title)
    ]
    more = f" The {MOST_VALUES} of {len(worst):,} values with the fewest of them." if len(worst) > MOST_VALUES else ""
    shown = [visible(name) for name in names]
    note = f"Right answers by {visible(key)}, with 95 % intervals.{more}"
    spec = _compared(rows, both, shown, "share of right answers")
    return chart(f"slice {key}", f"By {visible(key)}", note, spec) if rows else None


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).removeprefix("-").isdecimal()


def _pass_at(both: Both) -> JsonObject | None:
    rows = [
        row | {"k": int(row["name"])} for title, metrics in both for row in _rows(metrics.get("pass_at", {}), title)
    ]
    if not rows:
        return None
    x = quantity("k", "k samples", integer=True)
    spec = _lines(rows, x, "of", [visible(title) for title, _ in both], "share of prompts")
    return chart("pass_at", "Right in k samples", "Unbiased pass@k: at least one of k samples is right.", spec)


def _lines(rows: Sequence[JsonObject], x: JsonObject, series: str, names: Sequence[str], label: str) -> JsonObject:
    """Lines of rates over `x`, each in a band of its 95 % interval."""
    colours = colour(series, names, ["var(--this)", "var(--other)"], len(names) > 1)
    return BASE | {"data": {"values": rows}, "encoding": {"x": x, "color": colours}, "layer": band(label)}


def _steps(both: Both) -> JsonObject | None:
    rows = [
        row | {"step": int(row["name"]) + 1}
        for title, metrics in both
        for row in _rows(metrics.get("steps", {}).get("by_index", {}), title)
        if int(row["name"]) < MOST_STEPS
    ]
    if not rows:
        return None
    titles = [visible(title) for title, _ in both]
    shared = {
        "x": {
            "field": "step",
            "type": "ordinal",
            "title": "step of the completion",
            "axis": {"labelAngle": 0},
        },
        "color": colour("of", titles, ["var(--this)", "var(--other)"], len(both) > 1),
    }
    if len(both) > 1:
        shared["xOffset"] = {"field": "of", "sort": titles}
    spec = BASE | {"data": {"values": rows}, "encoding": shared, "layer": rule_and_point("y", "share right")}
    note = "Steps whose equations hold, of those that could be computed again."
    return chart("steps", "Steps by place", note, spec)


@dataclass(frozen=True, slots=True)
class Sureness:
    """What says how sure the model is, and how the charts of it are called."""

    prefix: str
    title: str
    selective: str
    axis: str


OWN = Sureness("", "Calibration", "Selective accuracy", "probability of the given answer")
VOTED = Sureness(
    "vote ", "Calibration of the vote", "Selective accuracy of the vote", "share of the samples that agree"
)


def _calibration(calibration: JsonObject, of: Sureness) -> list[JsonObject | None]:
    bins = [
        {"confidence": one["confidence"], "n": one["n"], **_rate(one["accuracy"])}
        for one in calibration.get("bins", [])
        if one.get("n") and one.get("confidence") is not None
    ]
    chosen = [
        {"coverage": one["coverage"], **_rate(one["accuracy"])}
        for one in calibration.get("selective", [])
        if one["accuracy"].get("value") is not None
    ]
    return [_reliability(bins, calibration, of) if bins else None, _selective(chosen, of) if chosen else None]


def _rate(rate: JsonObject) -> JsonObject:
    return {name: rate.get(name) for name in ("value", "low", "high")}


def _reliability(bins: list[JsonObject], calibration: JsonObject, of: Sureness) -> JsonObject:
    diagonal = {
        "data": {"values": DIAGONAL},
        "mark": {"type": "line", "strokeDash": [4, 4], "color": "var(--muted)", "strokeWidth": 1},
        "encoding": {"x": {"field": "x", "type": "quantitative"}, "y": {"field": "y", "type": "quantitative"}},
    }
    x = percent("confidence", of.axis)
    points: JsonObject = {
        "data": {"values": bins},
        "encoding": {"x": x, "color": {"value": "var(--this)"}},
        "layer": rule_and_point("y", "share right", size="n"),
    }
    note = "On the dashed line, what the model is sure of is right as often as it says."
    for name, title in (("ece", "Expected calibration error"), ("brier", "Brier score")):
        note += f" {title} {calibration[name]:.3f}." if calibration.get(name) is not None else ""
    spec = BASE | {"layer": [diagonal, points], "height": 260}
    return chart(f"{of.prefix}reliability", of.title, note, spec)


def _selective(rows: list[JsonObject], of: Sureness) -> JsonObject:
    x = percent("coverage", "answers kept, the surest first")
    spec = BASE | {
        "data": {"values": rows},
        "encoding": {"x": x, "color": {"value": "var(--this)"}},
        "layer": band("share right"),
    }
    note = "Accuracy if only the answers of which the model is surest are given."
    return chart(f"{of.prefix}selective", of.selective, note, spec)


FAITHFULNESS = {
    "truncated": ("Faithfulness: steps cut off", "steps kept, then asked for the answer"),
    "corrupted": ("Faithfulness: a step made wrong", "the step made wrong, counted from 0"),
    "filler": ("Faithfulness: steps made filler", "steps replaced, then asked for the answer"),
}


def _faithfulness(found: JsonObject) -> list[JsonObject | None]:
    made: list[JsonObject | None] = []
    for kind, (title, label) in FAITHFULNESS.items():
        rows = [row | {"step": int(row["name"])} for row in _rows(_whole(found.get(kind)), kind)]
        spec = _lines(rows, quantity("step", label, integer=True), "of", [kind], "share of the same answers")
        note = "How often the answer stays as it was; where the steps matter, it does not (95 % intervals)."
        if (area := (found.get("area_over_curve") or {}).get(kind)) and area["value"] is not None:
            note += f" Area over the curve {area['value']:.2f}: 0 is no effect, 1 means every step counts."
        made.append(chart(f"faithfulness {kind}", title, note, spec) if rows else None)
    return made


def _whole(by_step: Any) -> dict[str, JsonObject]:
    """The rates whose key is a number of steps."""
    named = by_step if isinstance(by_step, dict) else {}
    return {name: rate for name, rate in named.items() if str(name).isdigit() and isinstance(rate, dict)}


def _lengths(side: Side) -> JsonObject | None:
    lengths = [
        (int(item["num_new_tokens"]), "right" if item.get("correct") else "wrong")
        for item in side.items.values()
        if item.get("finish_reason") != "error" and item.get("num_new_tokens") is not None
    ]
    if not lengths:
        return None
    low, high = min(lengths)[0], max(lengths)[0]
    width = -(-(high - low + 1) // BINS)
    counts: dict[tuple[int, str], int] = {}
    for length, verdict in lengths:
        at = (low + (length - low) // width * width, verdict)
        counts[at] = counts.get(at, 0) + 1
    rows = [
        {"from": start, "to": start + width, "verdict": verdict, "answers": n}
        for (start, verdict), n in sorted(counts.items())
    ]
    axis = {"title": "new tokens", "scale": {"zero": False, "nice": False, "padding": 12}, "axis": {"format": "d"}}
    spec = BASE | {
        "data": {"values": rows},
        "mark": {"type": "bar", "binSpacing": 1},
        "encoding": {
            "x": {"field": "from", "type": "quantitative", "bin": "binned", **axis},
            "x2": {"field": "to"},
            "y": {"field": "answers", "type": "quantitative", "title": "answers"},
            "color": colour("verdict", ["right", "wrong"], ["var(--right-fill)", "var(--wrong-fill)"], legend=True),
            "tooltip": [{"field": name} for name in ("from", "to", "verdict", "answers")],
        },
    }
    return chart("lengths", "Length of the answers", "New tokens, the end token excluded.", spec)
