"""Figures of a run, drawn from the files in its folder: `figures/*.png`, 800 pixels wide.

A figure without data is not drawn. Uses `Figure` objects without pyplot and without `rcParams`: no window, no global
state, so that runs in threads do not disturb each other.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from tunix_rt.files import JsonObject, atomic_writer, read_record
from tunix_rt.report.results import Results
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.log import MetricsLog
from tunix_rt.runs.rates import interval, rate_title, rates
from tunix_rt.traces.prediction import read_items

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, GREY, PALE = "#2563ab", "#d9772b", "#3a8a4d", "#b8393b", "#8a8f98", "#e6e8eb"
MOST_STEPS = 40
"""Most step indices shown; a completion that does not end has hundreds."""
BINS = 40
NOTHING: JsonObject = {"value": 0.0, "low": 0.0, "high": 0.0}
WINDOW = 25
"""Number of logged losses in the centred moving average."""


def draw(run_folder: Path) -> list[Path]:
    """Draw what the files of a run allow; returns the files written. Raises DataError if a file is damaged."""
    run = RunFolder(run_folder)
    results = Results.of(run)
    log, metrics, before = results.log, read_record(run.metrics), results.before
    answered = [item for item in read_items(run.items) if item["finish_reason"] != "error"]
    jobs: list[tuple[str, bool, Callable[[], Figure]]] = [
        ("loss", bool(log.series("train/loss")), lambda: _loss(log)),
        ("accuracy", bool(metrics), lambda: _accuracy(metrics, before, log.series("eval/accuracy"))),
        ("lengths", bool(answered), lambda: _lengths(answered)),
        ("steps", bool(metrics.get("steps", {}).get("by_index")), lambda: _steps(metrics["steps"]["by_index"])),
    ]
    written = []
    for name, has_data, make in jobs:
        if has_data:
            path = run_folder / "figures" / f"{name}.png"
            save(make(), path)
            written.append(path)
    return written


def smooth(values: Sequence[float]) -> list[float]:
    """The centred moving average over `WINDOW` values, without the ends; empty for a short curve.

    It has no lag, so it is neither above a falling curve nor below a rising one.
    """
    sums = [0.0, *accumulate(values)]
    if len(values) < 2 * WINDOW:
        return []
    return [(sums[at + WINDOW] - sums[at]) / WINDOW for at in range(len(values) - WINDOW + 1)]


def _figure(height: float = 4.5) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(8, height), dpi=100, layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Write a figure atomically; the same figure gives the same bytes."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    with atomic_writer(path) as file:
        file.write(picture.getvalue())


def _style(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=12)
    axes.set_xlabel(x, fontsize=11)
    axes.set_ylabel(y, fontsize=11)
    axes.grid(color=PALE)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=10, color=GREY)


def _whole_numbers(axis: Axis) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def _plain_numbers(axis: Axis) -> None:
    """Label the axis with 0.6 instead of 6 × 10⁻¹, even if it is logarithmic."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    for which in (axis.set_major_formatter, axis.set_minor_formatter):
        which(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_minor_locator(LogLocator(subs=()))


def _loss(log: MetricsLog) -> Figure:
    figure = _figure(5.4)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    steps, losses = zip(*log.series("train/loss"), strict=True)
    means = smooth(losses)
    alpha, width = (0.35, 1.0) if means else (1.0, 2.0)
    top.plot(steps, losses, color=BLUE, alpha=alpha, linewidth=width, label="training")
    if means:
        middle = steps[WINDOW // 2 : WINDOW // 2 + len(means)]
        top.plot(middle, means, color=BLUE, linewidth=2, label=f"training, mean of {WINDOW} logged values")
    validation = log.series("eval/loss")
    if validation:
        top.plot(*zip(*validation, strict=True), color=ORANGE, marker="o", markersize=5, label="validation")
    if min(losses) > 0 and max(losses) > 20 * min(losses):
        top.set_yscale("log")
        _plain_numbers(top.yaxis)
    _style(top, "Loss", "", "nats per target token")
    top.legend(frameon=False, fontsize=10)
    rates = log.series("train/learning_rate")
    bottom.plot(*zip(*rates, strict=True), color=GREY, linewidth=2)
    _style(bottom, "", "step", "learning rate")
    bottom.set_ylim(bottom=0)
    _whole_numbers(bottom.xaxis)
    return figure


def _accuracy(metrics: JsonObject, before: JsonObject, curve: list[tuple[int, float]]) -> Figure:
    figure = _figure(7.5 if len(curve) > 1 else 4.5)
    axes = figure.subplots(2 if len(curve) > 1 else 1, 1, squeeze=False)[:, 0]
    _bars(axes[0], metrics, before)
    if len(curve) > 1:
        steps, shares = zip(*curve, strict=True)
        axes[1].plot(steps, [100 * share for share in shares], color=BLUE, marker="o", markersize=5, linewidth=2)
        _style(axes[1], "Validation samples while training", "step", "% right")
        axes[1].set_ylim(0, 104)
        axes[1].set_xlim(left=0)
        _whole_numbers(axes[1].xaxis)
    return figure


def _bars(axes: Axes, metrics: JsonObject, before: JsonObject) -> None:
    found = rates(metrics)
    names = [name for name, record in found.items() if record["value"] is not None]
    sets = [(found, BLUE, "after training")]
    if before:
        sets.insert(0, (rates(before), GREY, "before training"))
    width = 0.8 / len(sets)
    for index, (source, colour, label) in enumerate(sets):
        places = [place + (index - (len(sets) - 1) / 2) * width for place in range(len(names))]
        values, below, above = _in_per_cent([source.get(name, NOTHING) for name in names])
        whiskers = {"ecolor": "#333333", "capsize": 4, "elinewidth": 1.2}
        axes.bar(places, values, 0.92 * width, yerr=[below, above], color=colour, label=label, error_kw=whiskers)
        for place, value, reach in zip(places, values, above, strict=True):
            at = (place, value + reach)
            axes.annotate(f"{value:.1f}", at, (0, 3), textcoords="offset points", ha="center", fontsize=10)
    _style(axes, "Answers, with 95 % intervals", "", f"% (of {metrics['prompts']:,} prompts)")
    axes.set(ylim=(0, 112), yticks=range(0, 101, 20))
    axes.set_xticks(range(len(names)), [textwrap.fill(rate_title(name), 14) for name in names])
    axes.grid(visible=False, axis="x")
    axes.legend(frameon=False, fontsize=10, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))


def _in_per_cent(rates: Sequence[JsonObject]) -> tuple[list[float], list[float], list[float]]:
    """Values, and how far their intervals reach below and above."""
    values = [100 * float(rate["value"]) for rate in rates]
    ends = [interval({"rate": rate}, "rate") for rate in rates]
    # Rounding may put an end slightly beyond 0 % or 100 %, which matplotlib refuses.
    below = [max(value - 100 * end.low, 0.0) if end else 0.0 for value, end in zip(values, ends, strict=True)]
    above = [max(100 * end.high - value, 0.0) if end else 0.0 for value, end in zip(values, ends, strict=True)]
    return values, below, above


def _lengths(items: Sequence[JsonObject]) -> Figure:
    figure = _figure()
    axes = figure.subplots()
    lengths = {kind: [item["num_new_tokens"] for item in items if item["correct"] is kind] for kind in (True, False)}
    groups = {kind: found for kind, found in lengths.items() if found}
    low, high = min(map(min, groups.values())), max(map(max, groups.values()))
    width = -(-(high - low + 1) // BINS)
    edges = [low - 0.5 + width * place for place in range((high - low) // width + 2)]
    labels = [f"{'right' if kind else 'wrong'} ({len(found):,})" for kind, found in groups.items()]
    colours = [GREEN if kind else RED for kind in groups]
    axes.hist([*groups.values()], bins=edges, stacked=True, color=colours, label=labels, rwidth=0.9)
    if high - low < 10:
        axes.set_xlim(low - 6, high + 6)
    _style(axes, "Length of the completions", "new tokens, end token excluded", "answers")
    _whole_numbers(axes.xaxis)
    _whole_numbers(axes.yaxis)
    axes.legend(frameon=False, fontsize=10, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    return figure


def _steps(by_index: dict[str, JsonObject]) -> Figure:
    figure = _figure()
    axes = figure.subplots()
    indices = sorted(map(int, by_index))[:MOST_STEPS]
    rates = [by_index[str(index)] for index in indices]
    values, below, above = _in_per_cent(rates)
    places = [index + 1 for index in indices]
    axes.errorbar(places, values, [below, above], color=BLUE, fmt="o", capsize=4, elinewidth=1.2)
    if len(places) <= 12:
        for place, value, reach, rate in zip(places, values, below, rates, strict=True):
            at = (place, value - reach)
            shown = f"n = {rate['n']:,}"
            axes.annotate(shown, at, (0, -14), textcoords="offset points", ha="center", fontsize=9, color=GREY)
    _style(axes, "Steps whose equations hold, with 95 % intervals", "step of the completion", "% of those checked")
    axes.set(ylim=(-8, 104), yticks=range(0, 101, 20), xlim=(places[0] - 0.6, places[-1] + 0.6))
    _whole_numbers(axes.xaxis)
    return figure
