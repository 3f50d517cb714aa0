"""The numbers of the figures as CSV, for tools that draw their own plots (DVC, a spreadsheet): `plots/*.csv`.

`training.csv` (step, loss, learning_rate), `validation.csv` (step, loss, accuracy), `accuracy.csv` (label, rate, when,
value, low, high), `steps.csv` (step of a completion, value, low, high, n), `rollouts.csv` (step, reward, and the other
numbers of what was sampled) and `preferences.csv` (step, accuracy, margin, chosen, rejected). Every file is written, if
only with its header.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from tunix_rt.files import JsonObject, write_text
from tunix_rt.report.results import Results
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.log import MetricsLog
from tunix_rt.runs.rates import rate_title, rates

ROLLOUTS = ("reward", "reward_low", "reward_high", "length", "dead_groups", "truncated", "entropy", "kl", "mismatch")
PREFERENCES = ("accuracy", "margin", "chosen", "rejected")


def write_tables(run_folder: Path) -> None:
    """Write the tables of a run with results. Raises DataError if a file is damaged."""
    results, plots = Results.of(RunFolder(run_folder)), run_folder / "plots"
    log, metrics = results.log, results.metrics
    accuracy = dict(log.series("eval/accuracy"))
    by_index: JsonObject = metrics.get("steps", {}).get("by_index", {})
    learning_rate = dict(log.series("train/learning_rate"))
    training = [(step, loss, learning_rate.get(step, "")) for step, loss in log.series("train/loss")]
    _write(plots / "training.csv", ("step", "loss", "learning_rate"), training)
    validation = [(step, loss, accuracy.get(step, "")) for step, loss in log.series("eval/loss")]
    _write(plots / "validation.csv", ("step", "loss", "accuracy"), validation)
    answers = [
        (f"{rate_title(name)}{', before training' if found is not metrics else ''}", name, when, *_rate(record))
        for when, found in (("before training", results.before), ("trained", metrics))
        for name, record in rates(found).items()
    ]
    _write(plots / "accuracy.csv", ("label", "rate", "when", "value", "low", "high"), answers)
    steps = sorted((int(index) + 1, *_rate(rate), rate["n"]) for index, rate in by_index.items())
    _write(plots / "steps.csv", ("step", "value", "low", "high", "n"), steps)
    for name, columns in (("rollout", ROLLOUTS), ("preference", PREFERENCES)):
        _write(plots / f"{name}s.csv", ("step", *columns), _over_steps(log, name, columns))


def _over_steps(log: MetricsLog, kind: str, columns: Sequence[str]) -> Iterable[Sequence[object]]:
    """A row for each step that has the first of the metrics; what was not logged is empty."""
    known = [dict(log.series(f"{kind}/{column}")) for column in columns]
    return [(step, *(values.get(step, "") for values in known)) for step in known[0]]


def _rate(rate: JsonObject) -> tuple[float | None, float | None, float | None]:
    return rate["value"], rate["low"], rate["high"]


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, text.getvalue())
