"""Writes `report.md` from the files of a run folder: what was declared, the results, what was left out, next commands.

Every number is from one of the run's files; missing files are left out. The same files give the same text.
"""

from __future__ import annotations

import os
from pathlib import Path

from tunix_rt.files import JsonObject, read_record, write_text
from tunix_rt.hints import tunix_rt
from tunix_rt.report import calibration, faithfulness, learning
from tunix_rt.report.answers import answers
from tunix_rt.report.blocks import block, code, shortened, table
from tunix_rt.report.results import Results
from tunix_rt.report.summary import mesh_line, model_name, question, seen_line
from tunix_rt.runs.diff import value_at
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.origin import begun_from, starts_of
from tunix_rt.runs.rates import rate_title, rates
from tunix_rt.runs.secrets import mask_values
from tunix_rt.traces.prediction import Prediction, read_items
from tunix_rt.traces.prepared import left_out

DECLARED = {
    "backend": "backend.name backend.precision",
    "model": (
        "model.source.kind model.source.experiment model.source.name model.source.revision "
        "model.source.path model.source.family "
        "model.source.hidden_size model.source.num_hidden_layers model.source.num_attention_heads"
    ),
    "data": (
        "dataset.name dataset.source.kind dataset.source.operation dataset.source.digits dataset.source.wording "
        "dataset.source.steps dataset.source.name dataset.source.revision dataset.source.train.path "
        "dataset.source.test.path dataset.steps"
    ),
    "format": "format.kind tokenizer.kind",
    "training": (
        "optimizer.kind optimizer.learning_rate schedule.kind training.max_steps training.num_epochs "
        "training.max_seconds training.global_batch_size"
    ),
    "generation": "generation.max_new_tokens generation.temperature generation.num_return_sequences",
    "evaluation": "evaluation.scorers evaluation.extract",
    "seed": "seed",
}
"""The fields of a config that a reader asks for first; config.yaml has all of them."""
STEP_RATES = {
    "checked": "completions with a step that can be checked",
    "all_steps_right": "of those, all checked steps right",
    "right_answer_wrong_steps": "of those with the right answer, a step wrong",
    "wrong_answer_right_steps": "of those with a wrong answer, all checked steps right",
    "contradiction": "the answer contradicts the last step",
    "repeated": "a step is said twice",
    "unused": "a step's result is used by nothing",
}
LEFT_OUT = {
    "invalid": ("not a valid trace", "on_invalid"),
    "duplicate": ("prompt occurs twice", "on_duplicate"),
    "overlap": ("shared with evaluation", "on_overlap"),
    "near_duplicate": ("nearly as another prompt", "on_near_duplicate"),
    "overlong": ("too many tokens", "on_overlong"),
    "overlong_truncated": ("too many tokens, end cut off", "on_overlong"),
    "no_target": ("no token to learn", "on_no_target"),
    "weight": ("not in the share of a mixture", "source"),
}
CURVES = {
    "train/loss": "training loss",
    "eval/loss": "validation loss",
    "eval/accuracy": "share of validation samples right",
}
MARKS = {True: "✓", False: "✗", None: "·"}
NEXT = "What to type next"
SAMPLES = 5
WRONG_SAMPLES = 3
MOST_PLACES = 12


def write_report(run_folder: Path, ui_command: str | None = None) -> None:
    """Write `report.md` of a run atomically. Raises DataError if a record is damaged.

    `ui_command` shows the run in its tracker, if there is one.
    """
    run = RunFolder(run_folder)
    results, config = Results.of(run), run.read_config()
    metrics, before, told = results.metrics, results.before, facts(results)
    everything = ["Everything: [config.yaml](config.yaml).", ""] if config else []
    sections = {
        "Result": _result(metrics, before) + _seen(run) + _figure(run, "accuracy") + _figure(run, "lengths"),
        "Learning": learning.section(results) + _figure(run, "reward") + _figure(run, "preferences"),
        "Declared": told["Declared"] + everything,
        "Training": told["Training"] + _figure(run, "loss"),
        "Steps": _steps(metrics.get("steps", {})) + _figure(run, "steps"),
        "Faithfulness": faithfulness.section(metrics.get("faithfulness", {}), _rate) + _figure(run, "faithfulness"),
        "Calibration": calibration.section(metrics, _rate),
        "Slices": [line for key, rates in metrics.get("slices", {}).items() for line in _slice(key, rates)],
        "Data": told["Data"],
        "Predictions": _predictions(run),
        NEXT: _commands(run, config, ui_command),
    }
    lines = [f"# {run.name}", "", *_verdict(run, metrics, before, config)]
    for title, body in sections.items():
        if body:
            lines += [f"## {title}", "", *body]
    write_text(run.report, "\n".join(lines).rstrip("\n") + "\n")


def facts(results: Results) -> dict[str, list[str]]:
    """The sections on what the results stand on, by title: lines of Markdown, none where nothing is known."""
    run = results.run
    return {
        "Declared": _declared(run, run.read_config()),
        "Training": _training(results),
        "Data": _data(read_record(run.data)),
    }


def _figure(run: RunFolder, name: str) -> list[str]:
    file = f"figures/{name}.png"
    return [f"![{name}]({file})", ""] if (run.path / file).exists() else []


def _rate(record: JsonObject | None) -> str:
    """`67.2 % [63.0, 71.2], 336 of 500`; a dash if nothing was counted."""
    if not record or record.get("value") is None:
        return "–"
    counted = f"{record['k']:,} of {record['n']:,}" if "k" in record else f"{record['n']:,} prompts"
    return f"{100 * record['value']:.1f} % [{100 * record['low']:.1f}, {100 * record['high']:.1f}], {counted}"


def _verdict(run: RunFolder, metrics: JsonObject, before: JsonObject, config: JsonObject) -> list[str]:
    if not metrics:
        return []
    if metrics["accuracy"]["value"] is None:
        return ["No completion has a reference answer to compare with.", ""]
    split = value_at(config, "generation.split")
    where = f" on the {split} split" if split else ""
    earlier = f", {100 * before['accuracy']['value']:.1f} % before training" if before else ""
    if value_at(config, "training.max_steps") == 0:
        earlier = f", by {model_name(run)}" if starts_of(run) else ", by the model as it is"
    right = f"**{100 * metrics['accuracy']['value']:.1f} % of the answers are right**"
    return [f"{right}{where}{earlier}. Brackets hold 95 % Wilson intervals.", ""]


def _result(metrics: JsonObject, before: JsonObject) -> list[str]:
    if not metrics:
        return []
    both = [before, metrics] if before else [metrics]
    found = [rates(numbers) for numbers in both]
    rows = [[rate_title(name), *(_rate(records.get(name)) for records in found)] for name in found[-1]]
    for name in ("mean", "median", "p95", "max"):
        values = [numbers.get("completion_tokens", {}).get(name) for numbers in both]
        shown = ["–" if value is None else f"{value:,.4g}" for value in values]
        rows.append([f"tokens per completion, {name}", *shown])
    missing = metrics.get("missing")
    note = [f"{missing:,} answers are missing.", ""] if missing else []
    if unjudged := metrics.get("without_reference"):
        note += [f"{unjudged:,} prompts have no reference answer (a tool is called): no rate of right answers.", ""]
    if pairs := metrics.get("majority_against_greedy"):
        only = f"On {pairs['gained']:,} of {pairs['n']:,} prompts only the majority is right, on {pairs['lost']:,} only"
        note += [f"{only} the greedy answer (exact McNemar test: p = {pairs['p_value']:.2g}).", ""]
    return [*table(["", "before training", "after training"] if before else ["", "value"], rows), *note]


def _seen(run: RunFolder) -> list[str]:
    """Whether the model was trained on these prompts by an earlier run."""
    facts = run.stages().get("predict", {}).get("seen_in_training")
    if not facts:
        return []
    examples = [f"- {code(example)}" for example in facts["examples"]]
    return [f"Seen in training: {code(seen_line(facts))}.", "", *examples, *([""] if examples else [])]


def _declared(run: RunFolder, config: JsonObject) -> list[str]:
    if not config:
        return []
    rows = [["experiment", code(str(config.get("name", run.path.parent.name)))]]
    trains = value_at(config, "training.max_steps") != 0
    for title, keys in DECLARED.items() if trains else [item for item in DECLARED.items() if item[0] != "training"]:
        values = {key: value for key in keys.split() if (value := value_at(config, key)) is not None}
        rows.append([title, " ".join(code(f"{key}={mask_values(str(value))}") for key, value in values.items())])
    if declared := learning.declared(config):
        rows.append(["objective", " ".join(map(code, declared))])
    if earlier := begun_from(run):
        there = os.path.relpath(earlier.report, run.path.resolve())
        rows.insert(1, ["begins from", f"the model of [{code(earlier.name)}]({there})"])
    environment = read_record(run.environment)
    for title, key in (("device", "backend.device"), ("command", "command"), ("commit", "git.commit")):
        if found := value_at(environment, key):
            rows.append([title, code(str(found))])
    return table(["", ""], [*rows, *_placed(run.stages().get("train", {}))])


def _placed(record: JsonObject) -> list[list[str]]:
    """How training was shared out."""
    rows = [["mesh", code(mesh)]] if (mesh := mesh_line(record)) else []
    if at_once := record.get("local_batch_size"):
        rows.append(["rows of a device at once", code(str(at_once))])
    return rows


def _training(results: Results) -> list[str]:
    record = results.run.stages().get("train", {})
    rows = [["trained by", code(results.trained.name)]] if "folder" in record else []
    if record.get("steps_done") == 0:
        return [f"Nothing was trained: {code(model_name(results.run))} was asked as it is.", ""]
    if "steps_done" in record:
        epochs = f" ({record['num_epochs']:g} epochs)" if "num_epochs" in record else ""
        rows.append(["steps", f"{record['steps_done']:,} of {record['num_steps']:,}{epochs}"])
        rate = f" in {record['seconds']:,.1f} s: {record['tokens'] / max(record['seconds'], 1e-9):,.0f} a second"
        rows.append(["tokens", f"{record['tokens']:,}{rate}"])
        filled = f", {100 * record['packing_efficiency']:.1f} % filled" if "packing_efficiency" in record else ""
        rows.append(["rows", f"{record['row_length']} tokens{filled}"])
        rows.append(["weights of step", f"{record['selected_step']:,}"])
    if record.get("ended_early"):
        rows.append(["ended early", code(str(record["ended_early"]))])
    for name, title in CURVES.items():
        if series := results.log.series(name):
            (first, begin), (last, end) = series[0], series[-1]
            rows.append([title, f"{begin:.4g} (step {first:,}) → {end:.4g} (step {last:,})"])
    return table(["", ""], rows) if rows else []


def _steps(steps: JsonObject) -> list[str]:
    """The results of checking the steps. Steps are counted from 1 here."""
    rows = [[title, _rate(steps[name])] for name, title in STEP_RATES.items() if name in steps]
    if not rows:
        return []
    if first := [f"step {int(at) + 1}: {count:,}" for at, count in steps["first_wrong"].items()]:
        more = ", …" if len(first) > MOST_PLACES else ""
        rows.append(["first wrong step", ", ".join(first[:MOST_PLACES]) + more])
    return table(["", ""], rows)


def _slice(key: str, rates: JsonObject) -> list[str]:
    return table([f"meta key {code(key)}", "right answers"], [[code(value), _rate(rates[value])] for value in rates])


def _data(data: JsonObject) -> list[str]:
    if not data:
        return []
    counts, switches = data["counts"], data.get("switches", {})
    rows = []
    for split, record in data.get("splits", {}).items():
        sizes = [f"{record[key]:,}" if key in record else "–" for key in ("count", "tokens", "target_tokens")]
        rows.append([split, *sizes, code(str(record.get("sha256", ""))[:12])])
    lines = table(["split", "traces", "tokens", "targets", "sha256"], rows)
    unused = f"; {counts['unused']:,} beyond `dataset.limit` are unused" if counts.get("unused") else ""
    lines += [f"{counts['read']:,} records were read{unused}.", ""]
    missing = left_out(counts)
    rows = [
        [title, f"{missing[kind]:,}", code(f"dataset.{switch}={switches.get(switch)}")]
        for kind, (title, switch) in LEFT_OUT.items()
        if missing.get(kind)
    ]
    if counts.get("overlaps_allowed"):
        switch = code(f"dataset.on_overlap={switches.get('on_overlap')}")
        rows.append(["shared with evaluation, but kept", f"{counts['overlaps_allowed']:,}", switch])
    lines += table(["left out", "traces", "by"], rows) if rows else ["Nothing was left out.", ""]
    noted = [[what, f"{count:,}"] for what, count in counts.get("noted", {}).items()]
    return lines + (table(["changed on the way in", "times"], noted) if noted else [])


def _predictions(run: RunFolder) -> list[str]:
    """The first few wrong predictions, followed by right ones."""
    if not run.predictions.exists():
        return []
    judged = [answer for answer in answers(run) if answer.item]
    right, wrong = ([each for each in judged if each.item["correct"] is kind] for kind in (True, False))
    some_wrong = wrong[: max(WRONG_SAMPLES, SAMPLES - len(right))]
    chosen = [*some_wrong, *right[: SAMPLES - len(some_wrong)]]
    shown = [line for each in chosen for line in _sample(each.prediction, each.item)]
    more = len(wrong) - len(some_wrong)
    return [*shown, f"{more:,} more are wrong; a command below prints them.", ""] if more else shown


def _sample(prediction: Prediction, item: JsonObject) -> list[str]:
    prompt = shortened(item["prompt"], 1_000)
    facts = [f"answer {code(item['extracted'])}" if item["extracted"] is not None else "no answer"]
    facts += [f"reference {code(item['reference'])}", code(item["reason"]), f"{prediction.num_new_tokens:,} tokens"]
    if marks := " ".join(MARKS[verdict] for verdict in item.get("step_checks", {}).get("verdicts", [])):
        facts.append(f"steps {marks}")
    title = f"### {'Right' if item['correct'] else 'Wrong'}: {code(prediction.id)}"
    title += f", sample {prediction.sample}" if prediction.sample else ""
    return [title, "", *block(f"{prompt}\n→\n{prediction.completion}"), ", ".join(facts) + ".", ""]


def _commands(run: RunFolder, config: JsonObject, ui_command: str | None) -> list[str]:
    root = value_at(config, "run.root") or "runs"
    elsewhere = () if root == "runs" else ("--root", root)
    ask = tunix_rt("ask", run.name, question(run), *elsewhere)
    lines = ["Ask the model:", "", *block(ask, "sh")]
    if any(not item["correct"] for item in read_items(run.items)):
        wrong = tunix_rt("show", run.name, "--wrong", *elsewhere)
        lines += ["Wrong answers, with their steps marked:", "", *block(wrong, "sh")]
    if ui_command is not None:
        lines += ["See it in the tracker:", "", *block(ui_command, "sh")]
    return lines
