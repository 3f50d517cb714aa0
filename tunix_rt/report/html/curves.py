"""Charts over the steps of training: loss, learning rate, rate of right validation samples, speed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject, read_appended
from tunix_rt.report.drawing import WINDOW, smooth
from tunix_rt.report.html.spec import BASE, chart, colour, percent, quantity
from tunix_rt.report.learning import loss_unit
from tunix_rt.report.results import Results

MOST_POINTS = 1_000
"""Most points of a line; of a longer one, means of neighbours are drawn."""
COLOURS = ["var(--this)", "var(--other)", "var(--third)"]
Series = Sequence[tuple[int, float]]


def curves(results: Results) -> list[JsonObject | None]:
    """The charts of what training logged; None for what it did not."""
    log = results.log
    shares = {"right": log.series("eval/accuracy")}
    return [
        _loss(results),
        plain("validation", "Validation while training", "Validation samples that are right.", shares, None),
        plain("learning_rate", "Learning rate", "", {"learning rate": log.series("train/learning_rate")}, ""),
        plain("speed", "Speed", "Tokens per second, as measured.", {"tokens/s": _speed(results)}, "tokens/s"),
    ]


def _loss(results: Results) -> JsonObject | None:
    train, validation = results.log.series("train/loss"), results.log.series("eval/loss")
    if not train:
        return None
    means = smooth([loss for _, loss in train])
    middle = [step for step, _ in train[WINDOW // 2 : WINDOW // 2 + len(means)]]
    series: dict[str, Series] = {"training": train, "validation": validation}
    if means:
        series[f"training, mean of {WINDOW}"] = list(zip(middle, means, strict=True))
    losses = [loss for _, loss in train]
    log_scale = min(losses) > 0 and max(losses) > 20 * min(losses)
    y = quantity("value", loss_unit(results.log))
    if log_scale:
        y |= {"scale": {"type": "log"}, "axis": {"format": "~g", "tickCount": 5}}
    names = [name for name in series if series[name]]
    faint = {"condition": {"test": "datum.series === 'training'", "value": 0.35}, "value": 1} if means else {"value": 1}
    spec = _spec(series, y) | {"height": 260}
    spec["encoding"] |= {"opacity": faint, "color": colour("series", names, COLOURS, legend=True)}
    if means:
        spec["encoding"]["color"]["scale"]["range"] = [
            "var(--this)" if name.startswith("training") else "var(--other)" for name in names
        ]
    return chart("loss", "Loss", thinned(train), spec)


def plain(name: str, title: str, note: str, series: Mapping[str, Series], label: str | None) -> JsonObject | None:
    """Lines over the steps; `label` of the axis, None for rates."""
    shown = {key: points for key, points in series.items() if points}
    if not shown or max(map(len, shown.values())) < 2:
        return None
    y = percent("value", "share") if label is None else quantity("value", label)
    if name in ("learning_rate", "speed"):
        y |= {"scale": {"zero": True}, "axis": {"format": "~g" if name == "learning_rate" else "~s", "tickCount": 5}}
    spec = _spec(shown, y)
    spec["encoding"]["color"] = colour("series", list(shown), COLOURS, legend=len(shown) > 1)
    longest = max(shown.values(), key=len)
    return chart(name, title, " ".join(filter(None, (note, thinned(longest)))), spec)


def _spec(series: Mapping[str, Series], y: JsonObject) -> JsonObject:
    rows = [
        {"step": step, "value": value, "series": name}
        for name, points in series.items()
        for step, value in thin(points)
    ]
    few = max(map(len, series.values())) <= 60
    return BASE | {
        "data": {"values": rows},
        "mark": {"type": "line", "strokeWidth": 2, "point": {"size": 30, "filled": True} if few else False},
        "encoding": {
            "x": quantity("step", "step", integer=True),
            "y": y,
            "tooltip": [{"field": "step", "format": ","}, {"field": "value", "format": ".4g"}, {"field": "series"}],
        },
    }


def thin(points: Series) -> Series:
    """At most `MOST_POINTS` points: of more, the means of neighbours, each at the step of its last one."""
    width = -(-len(points) // MOST_POINTS)
    if width < 2:
        return points
    groups = [points[at : at + width] for at in range(0, len(points), width)]
    return [(group[-1][0], statistics.fmean(value for _, value in group)) for group in groups]


def thinned(points: Series) -> str:
    """What is said of a curve that `thin` made shorter."""
    width = -(-len(points) // MOST_POINTS)
    return f"Each point is the mean of {width:,} logged values." if width > 1 else ""


def _speed(results: Results) -> Series:
    timed = [line for _, line in read_appended(results.trained.timings_log) if "tokens_per_second" in line]
    try:
        return sorted((int(line["step"]), float(line["tokens_per_second"])) for line in timed)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{results.trained.timings_log}: not a log of timings ({error})") from None
