"""The table at the end of a run: the results, where they are, and the next commands."""

from __future__ import annotations

import os

from tunix_rt.files import JsonObject, read_json
from tunix_rt.hints import tunix_rt
from tunix_rt.report.results import Results
from tunix_rt.runs.folder import RunFolder
from tunix_rt.traces.prediction import read_items
from tunix_rt.traces.prepared import left_out

LONGEST_PROMPT = 200
Rows = list[tuple[str, str]]


def summary(run: RunFolder, ui_command: str | None) -> Rows:
    """Key and value of each line of the table, from the run folder's files alone."""
    results = Results.of(run)
    rows: Rows = [("accuracy", _rate(results.metrics["accuracy"]))]
    if results.before:
        rows.append(("before training", _rate(results.before["accuracy"])))
    rows.append(("stopped by itself", _rate(results.metrics["stop_rate"])))
    rows.append(("malformed", _rate(results.metrics["malformed_rate"])))
    rows += _training(results)
    counts = read_json(run.data)["counts"]
    missing = left_out(counts) | {"overlaps allowed": counts.get("overlaps_allowed", 0)}
    if reasons := [f"{count:,} {reason}" for reason, count in missing.items() if count]:
        rows.append(("left out of the data", ", ".join(reasons)))
    seconds = {name: record.get("stage_seconds", 0) for name, record in run.stages().items()}
    if times := [f"{name} {took:.1f} s" for name, took in seconds.items() if took >= 0.05]:
        rows.append(("time", ", ".join(times)))
    rows.append(("run folder", os.path.relpath(run.path)))
    if ui_command is not None:
        rows.append(("look at it", ui_command))
    return [*rows, ("ask it", tunix_rt("ask", run.name, question(run)))]


def question(run: RunFolder) -> str:
    """The first prompt that can be typed in a shell, or an ellipsis."""
    prompts = (str(item["prompt"]) for item in read_items(run.items))
    plain = (text for text in prompts if text.isprintable() and len(text) <= LONGEST_PROMPT and text[:1] != "-")
    return next(plain, "…")


def _rate(record: JsonObject) -> str:
    """A rate in per cent with its 95 % Wilson interval and its count; there may be nothing to count."""
    if record["value"] is None:
        return "no reference answer to compare with"
    spread = f"  [{100 * record['low']:.1f}, {100 * record['high']:.1f}]"
    return f"{100 * record['value']:.1f} %{spread}  ({record['k']} of {record['n']})"


def _training(results: Results) -> Rows:
    record, rows = results.run.stages().get("train", {}), []
    if train := results.log.series("train/loss"):
        rows.append(("training loss", f"{train[0][1]:.4f} → {train[-1][1]:.4f}"))
    if validation := results.log.series("eval/loss"):
        rows.append(("validation loss", f"{validation[-1][1]:.4f}"))
    if record.get("seconds"):
        per_second = record["tokens"] / max(record["seconds"], 1e-9)
        ended = f" (ended early: {record['ended_early']})" if record.get("ended_early") else ""
        steps = f"{record['steps_done']} steps, {record['tokens']:,} tokens, {per_second:,.0f} tokens/s"
        rows.append(("training", steps + ended))
    return rows
