"""The table at the end of a run: the results, where they are, and the next commands."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tunix_rt.files import JsonObject, read_json
from tunix_rt.hints import tunix_rt
from tunix_rt.report.results import Results
from tunix_rt.runs.diff import value_at
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.live import LEARNED
from tunix_rt.runs.origin import starts_of
from tunix_rt.traces.prediction import read_items
from tunix_rt.traces.prepared import left_out
from tunix_rt.traces.rollout import rollout_steps

LONGEST_PROMPT = 200
Rows = list[tuple[str, str]]


def summary(run: RunFolder, ui_command: str | None, pages: Sequence[str] = ()) -> Rows:
    """Key and value of each line of the table, from the run folder's files alone.

    `ui_command` has a line for each tracker, which shows the run there; `pages`: where it is found.
    """
    results = Results.of(run)
    rows: Rows = [("accuracy", rate_line(results.metrics["accuracy"]))]
    if missing := results.metrics.get("missing"):
        rows.append(("missing answers", f"{missing:,}, of which no rate knows"))
    if results.before:
        rows.append(("before training", rate_line(results.before["accuracy"])))
    rows += _seen(run)
    rows.append(("stopped by itself", rate_line(results.metrics["stop_rate"])))
    rows.append(("malformed", rate_line(results.metrics["malformed_rate"])))
    rows += _training(results)
    counts = read_json(run.data)["counts"]
    missing = left_out(counts) | {"overlaps allowed": counts.get("overlaps_allowed", 0)}
    if reasons := [f"{count:,} {reason}" for reason, count in missing.items() if count]:
        rows.append(("left out of the data", ", ".join(reasons)))
    seconds = {name: record.get("stage_seconds", 0) for name, record in run.stages().items()}
    if times := [f"{name} {took:.1f} s" for name, took in seconds.items() if took >= 0.05]:
        rows.append(("time", ", ".join(times)))
    return [*rows, ("run folder", os.path.relpath(run.path)), *next_steps(run, results.metrics, ui_command, pages)]


def next_steps(run: RunFolder, metrics: JsonObject, ui_command: str | None, pages: Sequence[str] = ()) -> Rows:
    """Where the run is seen, and commands to go on with, as they are typed in the shell at hand."""
    rows: Rows = []
    if run.page.exists():
        rows.append(("in a browser", run.page.resolve().as_uri()))
    shown = (ui_command or "").splitlines()
    rows += [("look at it", line) for line in shown]
    rows += [("its page there", page) for page in pages if page not in shown]
    accuracy = metrics.get("accuracy", {})
    if accuracy.get("n") and accuracy["k"] < accuracy["n"]:
        rows.append(("wrong answers", on_run("show", run, "--wrong")))
    if rollout_steps(run.rollouts):
        rows.append(("what it learned from", on_run("show", run, "--rollouts")))
    return [*rows, ("ask it", on_run("ask", run, question(run)))]


def on_run(command: str, run: RunFolder, *words: str) -> str:
    """A command about a run, to paste."""
    root = os.path.relpath(run.root)
    return tunix_rt(command, run.name, *words, *(() if root == "runs" else ("--root", root)))


def _seen(run: RunFolder) -> Rows:
    """How many prompts the model was trained on by an earlier run, if it comes from one."""
    facts = run.stages().get("predict", {}).get("seen_in_training")
    return [("seen in training", seen_line(facts))] if facts else []


def seen_line(facts: JsonObject) -> str:
    """`3 of 100 prompts share text with what quickstart/1e044ec70ffd was trained on`."""
    if facts["seen"] is None:
        return f"not known: {'; '.join(facts['not_compared'])}"
    runs = ", ".join(facts["runs"])
    share = f"{facts['seen']} of {facts['prompts']} prompts share text with what {runs} was trained on"
    return "; ".join([share, *(f"not known of {problem}" for problem in facts["not_compared"])])


def model_name(run: RunFolder) -> str:
    """The start model: the run that trained it, or as the config names it, with the adapter that is on it."""
    if starts := starts_of(run):
        return f"the model of {starts[-1].name}"
    config = run.read_config()
    source, adapter = value_at(config, "model.source") or {}, value_at(config, "model.adapter.path")
    name = next((str(source[key]) for key in ("name", "uri", "path") if key in source), f"a {source.get('kind')} model")
    return f"{name} with the adapter {adapter}" if adapter else name


def question(run: RunFolder) -> str:
    """The first prompt that can be typed in a shell, or an ellipsis."""
    prompts = (str(item["prompt"]) for item in read_items(run.items))
    plain = (text for text in prompts if text.isprintable() and len(text) <= LONGEST_PROMPT and text[:1] != "-")
    return next(plain, "…")


def rate_line(record: JsonObject) -> str:
    """A rate in per cent with its 95 % Wilson interval and its count; there may be nothing to count."""
    if record["value"] is None:
        return "no reference answer to compare with"
    spread = f"  [{100 * record['low']:.1f}, {100 * record['high']:.1f}]"
    return f"{100 * record['value']:.1f} %{spread}  ({record['k']} of {record['n']})"


def devices_line(record: JsonObject) -> str:
    """`4: data 1 x shard 4 x tensor 1, 2 rows of each at once`; empty if it is not recorded."""
    count, rows, mesh = len(record.get("devices", [])), record.get("local_batch_size"), mesh_line(record)
    at_once = "" if rows is None else f"{rows} row{'s' * (rows > 1)} of {'each' if mesh else 'it'} at once"
    named = f"{count}: {mesh}" if mesh else "1" if at_once else ""
    return ", ".join(part for part in (named, at_once) if part)


def mesh_line(record: JsonObject) -> str:
    """`data 1 x shard 4 x tensor 1`; empty for one device."""
    if len(record.get("devices", [])) < 2:
        return ""
    return " x ".join(f"{axis} {size}" for axis, size in record["mesh"].items())


def _losses(results: Results) -> Rows:
    rows: Rows = []
    if train := results.log.series("train/loss"):
        rows.append(("training loss", f"{train[0][1]:z.4f} → {train[-1][1]:z.4f}"))
    if validation := results.log.series("eval/loss"):
        rows.append(("validation loss", f"{validation[-1][1]:.4f}"))
    return rows


def _training(results: Results) -> Rows:
    record, rows = results.run.stages().get("train", {}), []
    if record.get("steps_done") == 0:
        return [("training", f"none: {model_name(results.run)} as it is")]
    for name, title in LEARNED.items():
        if series := results.log.series(name):
            rows.append((title, f"{series[0][1]:.4f} → {series[-1][1]:.4f}"))
    if cut := results.log.series("rollout/truncated"):
        rows.append(("cut off", f"{100 * cut[0][1]:.0f} % → {100 * cut[-1][1]:.0f} % of the answers it learned from"))
    else:  # with rewards a loss says nothing: of advantages it stays near 0, of references it may rise
        rows += _losses(results)
    if record.get("seconds"):
        per_second = record["tokens"] / max(record["seconds"], 1e-9)
        ended = f" (ended early: {record['ended_early']})" if record.get("ended_early") else ""
        steps = f"{record['steps_done']} steps, {record['tokens']:,} tokens, {per_second:,.0f} tokens/s"
        rows.append(("training", steps + ended))
    if placed := devices_line(record):
        rows.append(("devices", placed))
    return rows
