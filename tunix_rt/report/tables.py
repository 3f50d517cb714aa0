"""The numbers of the figures as CSV, for tools that draw their own plots (DVC, a spreadsheet): `plots/*.csv`.

`training.csv` (step, loss), `validation.csv` (step, loss, accuracy), `accuracy.csv` (rate, when, value, low, high)
and `steps.csv` (step of a completion, value, low, high, n). Every file is written, if only with its header.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from tunix_rt.files import JsonObject, read_json, write_text
from tunix_rt.report.results import Results
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.rates import rates


def write_tables(run_folder: Path) -> None:
    """Write the tables of a run with results. Raises DataError if a file is damaged."""
    run = RunFolder(run_folder)
    results = Results.of(run)
    log, metrics, before = results.log, dict(read_json(run.metrics)), results.before
    accuracy = dict(log.series("eval/accuracy"))
    by_index: JsonObject = metrics.get("steps", {}).get("by_index", {})
    plots = run_folder / "plots"
    _write(plots / "training.csv", ("step", "loss"), log.series("train/loss"))
    validation = [(step, loss, accuracy.get(step, "")) for step, loss in log.series("eval/loss")]
    _write(plots / "validation.csv", ("step", "loss", "accuracy"), validation)
    answers = [
        (name, when, *_rate(record))
        for when, found in (("before training", before), ("trained", metrics))
        for name, record in rates(found).items()
    ]
    _write(plots / "accuracy.csv", ("rate", "when", "value", "low", "high"), answers)
    steps = [
        (int(index) + 1, *_rate(rate), rate["n"])
        for index, rate in sorted(by_index.items(), key=lambda item: int(item[0]))
    ]
    _write(plots / "steps.csv", ("step", "value", "low", "high", "n"), steps)


def _rate(rate: JsonObject) -> tuple[object, object, object]:
    return rate["value"], rate["low"], rate["high"]


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, text.getvalue())
