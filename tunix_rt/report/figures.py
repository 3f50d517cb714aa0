"""Figures of a run, drawn from the files in its folder: `figures/*.png`. A figure without data is not drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunix_rt.files import JsonObject
from tunix_rt.report.drawing import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    WINDOW,
    axes_of,
    plain_numbers,
    save,
    smooth,
    style,
    whole_numbers,
)
from tunix_rt.report.faithfulness import KINDS
from tunix_rt.report.learning import loss_unit
from tunix_rt.report.learning_figures import learning_figures
from tunix_rt.report.results import Results
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.log import MetricsLog
from tunix_rt.runs.rates import LESS_IS_BETTER, rate_title, rates
from tunix_rt.traces.prediction import read_items

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_STEPS = 40
"""Most step indices shown; a completion that does not end has hundreds."""
BINS = 40


def draw(run_folder: Path) -> list[Path]:
    """Draw what the files of a run allow; returns the files written. Raises DataError if a file is damaged."""
    results = Results.of(RunFolder(run_folder))
    log, metrics, before = results.log, results.metrics, results.before
    answered = [item for item in read_items(results.run.items) if item["finish_reason"] != "error"]
    figures: dict[str, Figure] = {}
    if log.series("train/loss"):
        figures["loss"] = _loss(log)
    if metrics:
        figures["accuracy"] = _accuracy(metrics, before, log.series("eval/accuracy"))
    if answered:
        figures["lengths"] = _lengths(answered)
    if by_index := metrics.get("steps", {}).get("by_index"):
        figures["steps"] = _steps(by_index)
    if any(metrics.get("faithfulness", {}).get(kind) for kind in KINDS):
        figures["faithfulness"] = _faithfulness(metrics["faithfulness"])
    figures |= learning_figures(log)
    for name, figure in figures.items():
        save(figure, run_folder / "figures" / f"{name}.png")
    return [run_folder / "figures" / f"{name}.png" for name in figures]


def _loss(log: MetricsLog) -> Figure:
    figure, (top, bottom) = axes_of(5.4, 2, sharex=True, height_ratios=[3, 1])
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
        plain_numbers(top.yaxis)
    style(top, "Loss", "", loss_unit(log))
    top.legend(frameon=False, fontsize=10)
    rates = log.series("train/learning_rate")
    bottom.plot(*zip(*rates, strict=True), color=GREY, linewidth=2)
    style(bottom, "", "step", "learning rate")
    bottom.set_ylim(bottom=0)
    whole_numbers(bottom.xaxis)
    return figure


def _accuracy(metrics: JsonObject, before: JsonObject, curve: list[tuple[int, float]]) -> Figure:
    figure, axes = axes_of(7.5, 2) if len(curve) > 1 else axes_of()
    _bars(axes[0], metrics, before)
    if len(curve) > 1:
        steps, shares = zip(*curve, strict=True)
        axes[1].plot(steps, [100 * share for share in shares], color=BLUE, marker="o", markersize=5, linewidth=2)
        style(axes[1], "Validation samples while training", "step", "% right")
        axes[1].set_ylim(0, 104)
        axes[1].set_xlim(left=0)
        whole_numbers(axes[1].xaxis)
    return figure


def _bars(axes: Axes, metrics: JsonObject, before: JsonObject) -> None:
    """A bar for each rate; those of which less is better come last, in a colour of their own."""
    found = rates(metrics)
    names = [name for name, record in found.items() if record["value"] is not None]
    names.sort(key=lambda name: name in LESS_IS_BETTER)
    good = [name for name in names if name not in LESS_IS_BETTER]
    sets = [(found, good, BLUE, "after"), (found, names[len(good) :], RED, "after, less is better")]
    if before:
        sets.insert(0, (rates(before), names, GREY, "before training"))
    width = 0.4 if before else 0.8
    for source, drawn, colour, label in sets:
        aside = 0.0 if not before else -width / 2 if source is not found else width / 2
        places = [names.index(name) + aside for name in drawn]
        values, below, above = _in_per_cent([source.get(name, {}) for name in drawn])
        whiskers = {"ecolor": "#333333", "capsize": 4, "elinewidth": 1.2}
        if drawn:
            axes.bar(places, values, 0.92 * width, yerr=[below, above], color=colour, label=label, error_kw=whiskers)
        for place, value, reach in zip(places, values, above, strict=True):
            at = (place, value + reach)
            axes.annotate(f"{value:.1f}", at, (0, 3), textcoords="offset points", ha="center", fontsize=10)
    style(axes, "Answers, with 95 % intervals", "", f"% (of {metrics['prompts']:,} prompts)")
    axes.set(ylim=(0, 112), yticks=range(0, 101, 20))
    axes.set_xticks(range(len(names)), [textwrap.fill(rate_title(name), 14) for name in names])
    axes.grid(visible=False, axis="x")
    axes.legend(frameon=False, fontsize=10, ncols=3, columnspacing=1.2, loc="lower right", bbox_to_anchor=(1, 1))


def _in_per_cent(rates: Sequence[JsonObject]) -> tuple[list[float], list[float], list[float]]:
    """Values, and how far their intervals reach below and above; 0 for a rate of nothing."""
    values, lows, highs = ([100 * float(rate.get(key) or 0.0) for rate in rates] for key in ("value", "low", "high"))
    # Rounding may put an end slightly beyond 0 % or 100 %, which matplotlib refuses.
    below = [max(value - low, 0.0) for value, low in zip(values, lows, strict=True)]
    above = [max(high - value, 0.0) for value, high in zip(values, highs, strict=True)]
    return values, below, above


def _lengths(items: Sequence[JsonObject]) -> Figure:
    figure, (axes,) = axes_of()
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
    style(axes, "Length of the completions", "new tokens, end token excluded", "answers")
    whole_numbers(axes.xaxis)
    whole_numbers(axes.yaxis)
    axes.legend(frameon=False, fontsize=10, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    return figure


def _steps(by_index: dict[str, JsonObject]) -> Figure:
    figure, (axes,) = axes_of()
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
    style(axes, "Steps whose equations hold, with 95 % intervals", "step of the completion", "% of those checked")
    axes.set(ylim=(-8, 104), yticks=range(0, 101, 20), xlim=(places[0] - 0.6, places[-1] + 0.6))
    whole_numbers(axes.xaxis)
    return figure


def _faithfulness(record: JsonObject) -> Figure:
    figure, (top, bottom) = axes_of(8, 2)
    colours = dict(zip(KINDS, (BLUE, GREY, RED), strict=True))
    kinds = [kind for kind in KINDS if record.get(kind)]
    for kind in kinds:
        offset = kind == "corrupted"  # its first step is step 1, where 1 step is given
        _curve(top, {float(k) + offset: rate for k, rate in record[kind].items()}, colours[kind], KINDS[kind])
        shares = {100 * float(share): rate for share, rate in record["by_share"][kind].items()}
        _curve(bottom, shares, colours[kind], KINDS[kind])
    if followed := {float(k) + 1: rate for k, rate in record["followed"].items()}:
        _curve(top, followed, ORANGE, "a mistake in step k: the wrong number is used", "--")
    style(top, "Answers that stay the same when steps are changed, with 95 % intervals", "k", "% of the completions")
    style(bottom, "The same, over the share of the steps", "% of the completion's own steps", "% of the completions")
    for axes in (top, bottom):
        axes.set(ylim=(-4, 104), yticks=range(0, 101, 20))
    whole_numbers(top.xaxis)
    figure.legend(*top.get_legend_handles_labels(), frameon=False, fontsize=10, ncols=2, loc="outside lower center")
    return figure


def _curve(axes: Axes, rates: Mapping[float, JsonObject], colour: str, label: str, line: str = "-") -> None:
    places = sorted(rates)[:MOST_STEPS]
    values, below, above = _in_per_cent([rates[place] for place in places])
    axes.errorbar(
        places,
        values,
        [below, above],
        color=colour,
        label=label,
        linestyle=line,
        linewidth=1.5,
        marker="o",
        markersize=4,
        capsize=3,
        elinewidth=1,
    )
