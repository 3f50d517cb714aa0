"""The figures of a run that learned from rewards or preferences: `reward.png`, `preferences.png`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tunix_rt.report.drawing import BLUE, GREEN, GREY, ORANGE, RED, WINDOW, axes_of, smooth, style, whole_numbers
from tunix_rt.report.learning import ENDS, REWARD, SHARES, curve_titles
from tunix_rt.runs.log import MetricsLog

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COMPONENTS = (GREEN, ORANGE, RED, GREY)
"""Colours of the reward's components; further ones share the last."""


def learning_figures(log: MetricsLog) -> dict[str, Figure]:
    """Name → figure of what the run logged; none for one that learned from traces alone."""
    figures = {}
    if log.series(REWARD):
        figures["reward"] = _reward(log)
    if log.series("preference/accuracy"):
        figures["preferences"] = _preferences(log)
    return figures


def _reward(log: MetricsLog) -> Figure:
    """Reward with its interval and components; length; shares of answers without use."""
    figure, (top, middle, bottom) = axes_of(8, 3, sharex=True, height_ratios=[3, 1.2, 1.2])
    low, high = (dict(log.series(REWARD + end)) for end in ENDS)
    steps = [step for step, _ in log.series(REWARD) if step in low and step in high]
    top.fill_between(steps, [low[s] for s in steps], [high[s] for s in steps], color=BLUE, alpha=0.18, linewidth=0)
    _line(top, log, REWARD, "reward, with its 95 % interval", BLUE, width=2.0)
    _line(top, log, "eval/reward", "greedy answers to validation prompts", ORANGE, width=2.0, marker="o")
    components = [name for name in curve_titles(log) if name.startswith(f"{REWARD}_")]
    for place, name in enumerate(components if len(components) > 1 else ()):
        colour = COMPONENTS[min(place, len(COMPONENTS) - 1)]
        _line(top, log, name, f"{name.removeprefix(f'{REWARD}_')}, not weighted", colour, line="--")
    style(top, "Reward of the sampled answers", "", "mean over the answers of a step")
    _line(middle, log, "rollout/length", "", BLUE)
    style(middle, "", "", "tokens")
    for (name, label), colour in zip(SHARES.items(), (GREY, RED), strict=True):
        _line(bottom, log, name, label, colour, scale=100)
    style(bottom, "", "step", "%")
    bottom.set_ylim(-4, 104)
    _finished(figure, {top: 2, bottom: 2})
    return figure


def _preferences(log: MetricsLog) -> Figure:
    """How often the chosen answer is preferred, and the implicit rewards of both."""
    figure, (top, bottom) = axes_of(6.4, 2, sharex=True)
    _line(top, log, "preference/accuracy", "training", BLUE, scale=100)
    _line(top, log, "eval/preference_accuracy", "validation", ORANGE, scale=100, marker="o")
    style(top, "Pairs in which the chosen answer is preferred", "", "%")
    top.set_ylim(-4, 104)
    for name, colour in (("chosen", GREEN), ("rejected", RED), ("margin", BLUE)):
        _line(bottom, log, f"preference/{name}", name, colour)
    style(bottom, "Implicit rewards, and their margin", "step", "nats, times beta")
    _finished(figure, {top: 2, bottom: 3})
    return figure


def _line(
    axes: Axes,
    log: MetricsLog,
    name: str,
    label: str,
    colour: str,
    scale: float = 1.0,
    width: float = 1.5,
    line: str = "-",
    marker: str = "",
) -> None:
    """A metric over the steps; of a long one its moving average too, in front of the faint values."""
    series = log.series(name)
    if not series:
        return
    steps, values = [step for step, _ in series], [scale * value for _, value in series]
    means = smooth(values)
    own = {"alpha": 0.3, "linewidth": 1.0} if means else {"linewidth": width, "label": label}
    axes.plot(steps, values, color=colour, linestyle=line, marker=marker or None, markersize=4, **own)
    if means:
        middle = steps[WINDOW // 2 : WINDOW // 2 + len(means)]
        axes.plot(middle, means, color=colour, linestyle=line, linewidth=max(width, 1.5), label=label)


def _finished(figure: Figure, legends: Mapping[Axes, int]) -> None:
    """Whole steps, and a legend above the axes that need one (→ its columns)."""
    for axes in figure.axes:
        whole_numbers(axes.xaxis)
    for axes, columns in legends.items():
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False, fontsize=10, ncols=columns, loc="best")
