"""What all figures share: 800 pixels wide, colours, axes, and how one is written.

Uses `Figure` objects without pyplot and without `rcParams`: no window, no global state, so that runs in threads do not
disturb each other.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunix_rt.files import atomic_writer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, GREY, PALE = "#2563ab", "#d9772b", "#3a8a4d", "#b8393b", "#8a8f98", "#e6e8eb"
WINDOW = 25
"""Number of logged values in the centred moving average."""


def axes_of(height: float = 4.5, rows: int = 1, **how: Any) -> tuple[Figure, list[Axes]]:
    """A figure and its axes, one below the other; `height` in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), dpi=100, layout="constrained")
    return figure, list(figure.subplots(rows, 1, squeeze=False, **how)[:, 0])


def save(figure: Figure, path: Path) -> None:
    """Write a figure atomically; the same figure gives the same bytes."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    with atomic_writer(path) as file:
        file.write(picture.getvalue())


def style(axes: Axes, title: str, x: str, y: str) -> None:
    """Title, labels and the look that all figures share."""
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=12)
    axes.set_xlabel(x, fontsize=11)
    axes.set_ylabel(y, fontsize=11)
    axes.grid(color=PALE)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=10, color=GREY)


def whole_numbers(axis: Axis) -> None:
    """Label the axis with whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def plain_numbers(axis: Axis) -> None:
    """Label the axis with 0.6 instead of 6 × 10⁻¹, even if it is logarithmic."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    for which in (axis.set_major_formatter, axis.set_minor_formatter):
        which(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_minor_locator(LogLocator(subs=()))


def smooth(values: Sequence[float]) -> list[float]:
    """The centred moving average over `WINDOW` values, without the ends; empty for a short curve.

    It has no lag, so it is neither above a falling curve nor below a rising one.
    """
    sums = [0.0, *accumulate(values)]
    if len(values) < 2 * WINDOW:
        return []
    return [(sums[at + WINDOW] - sums[at]) / WINDOW for at in range(len(values) - WINDOW + 1)]
