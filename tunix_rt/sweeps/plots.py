"""Figures of a sweep: what its members varied against the results, and which parameters mattered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunix_rt.report.drawing import BLUE, GREY, PALE, save
from tunix_rt.runs.rates import lookup
from tunix_rt.sweeps.ranking import Member, varying

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Positions along an axis at which numbers are written."""
MOST_LABELS = 8
"""Values named along an axis of choices."""
LONGEST = 24
"""Maximum length of a value or name; longer ones are cut."""


def parallel_coordinates(members: Sequence[Member], metric: str, path: Path) -> None:
    """One line per finished member through what it varied, to the metric; no figure for fewer than two results."""
    done = [member for member in members if member.metrics is not None]
    keys = varying([member.record.values for member in done])
    values = [lookup(member.metrics or {}, metric) for member in done]
    if len(set(values)) < 2 or not keys:
        return
    axes = [_Axis.of(key, [member.record.values.get(key, "") for member in done]) for key in keys]
    axes.append(_Axis.of(metric, [repr(value) for value in values]))
    save(_draw_lines(axes, values, f"{len(done)} finished members"), path)


class _Axis:
    """One vertical line: where each member crosses it (0 to 1), and its labels."""

    def __init__(self, name: str, places: Sequence[float], ticks: Mapping[str, float]) -> None:
        self.name, self.places, self.ticks = name, places, ticks

    @classmethod
    def of(cls, name: str, values: Sequence[str]) -> _Axis:
        """Places numbers by size (by logarithm if they span two decades), other values one above the other."""
        found = numbers(values)
        if found is None:
            kinds = list(dict.fromkeys(values))
            place = {kind: (index + 0.5) / len(kinds) for index, kind in enumerate(kinds)}
            return cls(name, [place[v] for v in values], {_cut(kind): place[kind] for kind in kinds[:MOST_LABELS]})
        low, high = min(found), max(found)
        log = low > 0 and high / low >= 100
        scale = math.log10 if log else float
        reach = scale(high) - scale(low) or 1.0
        marks = [low * (high / low) ** share if log else low + share * (high - low) for share in SHARES]
        ticks = {f"{mark:.3g}": (scale(mark) - scale(low)) / reach for mark in marks}
        return cls(name + (" (log)" if log else ""), [(scale(n) - scale(low)) / reach for n in found], ticks)


def numbers(values: Sequence[str]) -> list[float] | None:
    """The values as finite numbers; None if one of them is none."""
    try:
        found = [float(value) for value in values]
    except ValueError:
        return None
    return found if all(map(math.isfinite, found)) else None


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"…{text[1 - LONGEST :]}"


def _draw_lines(axes: Sequence[_Axis], values: Sequence[float], title: str) -> Figure:
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, 2.0 * len(axes)), 4.5), dpi=100, layout="constrained")
    plot = figure.subplots()
    low, high = min(values), max(values)
    order = sorted(range(len(values)), key=lambda index: values[index])
    for index in order:
        share = (values[index] - low) / (high - low) if high > low else 0.5
        line = [axis.places[index] for axis in axes]
        plot.plot(range(len(axes)), line, color=colormaps["viridis_r"](0.1 + 0.9 * share), linewidth=1.6, alpha=0.85)
    for place, axis in enumerate(axes):
        plot.axvline(place, color=GREY, linewidth=1)
        for text, height in axis.ticks.items():
            plot.annotate(
                text, (place, height), (-5, 0), textcoords="offset points", ha="right", va="center", fontsize=9,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.75},
            )  # fmt: skip
    names = [_cut(axis.name.rsplit(".", 1)[-1]) for axis in axes]
    plot.set_xticks(range(len(axes)), names, fontsize=10)
    plot.set_yticks([])
    plot.set(xlim=(-0.45, len(axes) - 0.85), ylim=(-0.05, 1.05))
    plot.spines[["top", "right", "left", "bottom"]].set_visible(False)
    plot.tick_params(axis="x", length=0)
    plot.set_title(f"{title}; the darker, the higher {axes[-1].name}", loc="left", fontsize=11, fontweight="bold")
    return figure


def importances(shares: Mapping[str, float], metric: str, path: Path) -> None:
    """A bar for each parameter: its share of the differences in the metric."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.6 + 0.5 * len(shares)), dpi=100, layout="constrained")
    plot = figure.subplots()
    names = sorted(shares, key=lambda name: shares[name])
    bars = plot.barh(range(len(names)), [shares[name] for name in names], color=BLUE, height=0.6)
    plot.bar_label(bars, labels=[f"{shares[name]:.2f}" for name in names], padding=4, fontsize=10)
    plot.set_yticks(range(len(names)), names, fontsize=10)
    plot.set(xlim=(0, 1.1))
    plot.set_xlabel("share of the variance (fANOVA)", fontsize=11)
    plot.grid(color=PALE, axis="x")
    plot.set_axisbelow(True)
    plot.spines[["top", "right"]].set_visible(False)
    plot.set_title(f"What {metric} depends on", loc="left", fontsize=12, fontweight="bold", pad=12)
    save(figure, path)
