"""Draws the curves of a sweep, with published ones beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunix_rt.config.execution import Published
from tunix_rt.report.drawing import BLUE, GREEN, GREY, ORANGE, RED, plain_numbers, save, style
from tunix_rt.sweeps.curves import Curves, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (BLUE, ORANGE, GREEN, RED, "#7a52a3", "#8c6239", "#c2568f", "#2b8f98")
"""Of the lines, in order; then again from the first."""
DECADE = 10
"""Ratio of the largest to the smallest value from which the axis is logarithmic."""


def draw(curves: Curves, published: Published | None, path: Path) -> None:
    """A line of means with the interval of each; published values as a dashed line of the same colour."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    axes = figure.subplots()
    share = all(0 <= value <= 1 for point in curves.points for value in point.values)
    scale = 100.0 if share else 1.0
    for at, (name, points) in enumerate(curves.lines().items()):
        colour = COLOURS[at % len(COLOURS)]
        _own(axes, points, name, colour, scale)
        if published is not None and name in published.lines:
            _theirs(axes, published, name, colour, scale)
    places = sorted({point.x for point in curves.points} | {*(published.x if published else ())})
    if places[0] > 0 and places[-1] >= DECADE * places[0]:
        axes.set_xscale("log")
        plain_numbers(axes.xaxis)
    if published is not None:
        axes.plot([], [], color=GREY, linestyle="--", marker="o", markerfacecolor="white", label=published.source)
    seeds = f", over {' and '.join(curves.seeds)}" if curves.seeds else ""
    style(axes, f"Mean {curves.metric} with 95 % intervals{seeds}", curves.x, "%" if share else curves.metric)
    if share:
        axes.set(ylim=(-3, 104), yticks=range(0, 101, 20))
    if curves.line is not None:
        handles, names = axes.get_legend_handles_labels()
        figure.legend(handles, names, frameon=False, fontsize=9, ncols=3, loc="outside lower center", title=curves.line)
    save(figure, path)


def _own(axes: Axes, points: Sequence[Point], name: str, colour: str, scale: float) -> None:
    x, means = [point.x for point in points], [scale * point.mean for point in points]
    below = [max(scale * (point.mean - point.low), 0.0) for point in points]
    above = [max(scale * (point.high - point.mean), 0.0) for point in points]
    axes.errorbar(x, means, [below, above], color=colour, fmt="o-", markersize=5, linewidth=2, capsize=4, label=name)


def _theirs(axes: Axes, published: Published, name: str, colour: str, scale: float) -> None:
    pairs = zip(published.x, published.lines[name], strict=True)
    known = [(x, scale * value) for x, value in pairs if value is not None]
    axes.plot(
        *zip(*known, strict=True), color=colour, linestyle="--", linewidth=1.2, marker="o", markersize=4,
        markerfacecolor="white", alpha=0.8,
    )  # fmt: skip
