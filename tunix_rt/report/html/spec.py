"""Pieces of Vega-Lite specifications (https://vega.github.io/vega-lite/docs/) that several charts share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunix_rt.files import JsonObject

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
"""The name of the language; never fetched."""
BASE: JsonObject = {"$schema": SCHEMA, "width": "container", "height": 220, "autosize": {"type": "fit-x"}}
NUMBERS = [
    {"field": "value", "type": "quantitative", "format": ".1%", "title": "share"},
    {"field": "low", "type": "quantitative", "format": ".1%", "title": "95 % from"},
    {"field": "high", "type": "quantitative", "format": ".1%", "title": "to"},
    {"field": "n", "type": "quantitative", "format": ",", "title": "of"},
]


def chart(name: str, title: str, note: str, spec: JsonObject) -> JsonObject:
    """A chart as the page takes it."""
    return {"id": name, "title": title, "note": note, "spec": spec}


def quantity(field: str, title: str, integer: bool = False, **more: Any) -> JsonObject:
    """A position on an axis of numbers that need not begin at 0."""
    axis = {"tickMinStep": 1, "format": ",d"} if integer else {}
    return {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False}, "axis": axis, **more}


def percent(field: str, title: str) -> JsonObject:
    """A position on an axis from 0 to 100 %."""
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": {"domain": [0, 1]},
        "axis": {"format": ".0%", "tickCount": 5},
    }


def colour(field: str, names: Sequence[str], colours: Sequence[str], legend: bool) -> JsonObject:
    """Colour by a field; `names` in the order of the legend."""
    shown = {"orient": "top", "title": None} if legend else None
    scale = {"domain": list(names), "range": list(colours[: len(names)])}
    return {"field": field, "type": "nominal", "scale": scale, "legend": shown}


def rule_and_point(axis: str, title: str, size: str | None = None) -> list[JsonObject]:
    """Layers of a rate (`value`) with its interval (`low`, `high`) along an axis."""
    ends = {axis: percent("low", title), f"{axis}2": {"field": "high"}}
    grown = {"size": {"field": size, "type": "quantitative", "legend": None, "scale": {"range": [40, 220]}}}
    return [
        {"mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.55}, "encoding": ends},
        {
            "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
            "encoding": {axis: percent("value", title), "tooltip": NUMBERS, **(grown if size else {})},
        },
    ]


def band(title: str) -> list[JsonObject]:
    """Layers of a line of rates in a band of their intervals."""
    return [
        {
            "mark": {"type": "area", "opacity": 0.16},
            "encoding": {"y": percent("low", title), "y2": {"field": "high"}},
        },
        {
            "mark": {"type": "line", "strokeWidth": 2, "point": {"size": 40, "filled": True}},
            "encoding": {"y": percent("value", title), "tooltip": NUMBERS},
        },
    ]
