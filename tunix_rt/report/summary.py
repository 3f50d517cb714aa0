"""The table at the end of a run: the results, where they are, and the next commands."""

from __future__ import annotations

import os

from tunix_rt.files import JsonObject, read_json
from tunix_rt.hints import tunix_rt
from tunix_rt.report.results import Results
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.log import MetricsLog
from tunix_rt.runs.rates import interval, lookup
from tunix_rt.traces.prediction import read_items

LONGEST_PROMPT = 200
Rows = list[tuple[str, str]]


def summary(run: RunFolder, ui_command: str | None) -> Rows:
    """Key and value of each line of the table, from the run folder's files alone."""
    results = Results.of(run)
    metrics = dict(read_json(run.metrics))
    rows: Rows = [("accuracy", rate(metrics, "accuracy"))]
    if results.before:
        rows.append(("before training", rate(results.before, "accuracy")))
    rows += [
        ("stopped by itself", rate(metrics, "stop_rate")),
        ("malformed", rate(metrics, "malformed_rate")),
    ]
    rows += [*_training(run, results.log), *_left_out(run), *_times(run), ("run folder", os.path.relpath(run.path))]
    if ui_command is not None:
        rows.append(("look at it", ui_command))
    rows.append(("ask it", tunix_rt("ask", run.name, question(run))))
    return rows


def question(run: RunFolder) -> str:
    """The first prompt that can be typed in a shell, or an ellipsis."""
    prompts = (str(item["prompt"]) for item in read_items(run.items))
    plain = (text for text in prompts if text.isprintable() and len(text) <= LONGEST_PROMPT and text[:1] != "-")
    return next(plain, "…")


def rate(metrics: JsonObject, name: str) -> str:
    """A rate in per cent with its 95 % Wilson interval and its count."""
    record = metrics[name]
    between = interval(metrics, name)
    spread = f"  [{100 * between.low:.1f}, {100 * between.high:.1f}]" if between else ""
    return f"{100 * lookup(metrics, name):.1f} %{spread}  ({record['k']} of {record['n']})"


def _training(run: RunFolder, log: MetricsLog) -> Rows:
    record = run.stages().get("train", {})
    rows: Rows = []
    train, validation = log.series("train/loss"), log.series("eval/loss")
    if train:
        rows.append(("training loss", f"{train[0][1]:.4f} → {train[-1][1]:.4f}"))
    if validation:
        rows.append(("validation loss", f"{validation[-1][1]:.4f}"))
    if record.get("seconds"):
        rate_of_tokens = record["tokens"] / max(record["seconds"], 1e-9)
        steps = f"{record['steps_done']} steps, {record['tokens']:,} tokens, {rate_of_tokens:,.0f} tokens/s"
        ended = f" (ended early: {record['ended_early']})" if record.get("ended_early") else ""
        rows.append(("training", steps + ended))
    return rows


def _left_out(run: RunFolder) -> Rows:
    counts = dict(read_json(run.data))["counts"]
    left_out = {**counts.get("rejected", {}), **counts.get("dropped", {})}
    if counts.get("overlaps_allowed"):
        left_out["overlaps allowed"] = counts["overlaps_allowed"]
    told = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
    return [("left out of the data", told)] if told else []


def _times(run: RunFolder) -> Rows:
    times = [
        f"{name} {record['stage_seconds']:.1f} s"
        for name, record in run.stages().items()
        if record.get("stage_seconds", 0) >= 0.05
    ]
    return [("time", ", ".join(times))] if times else []
