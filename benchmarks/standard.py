"""The trained model of a run by another judge: EleutherAI's lm-evaluation-harness beside our own verdicts.

`python -m benchmarks.standard RUN` (extra: `standard`) writes a task of the harness with the run's own test prompts
(the same text, no examples before it, greedy, at most as many new tokens) into RUN/standard, lets the harness load
`model/` with plain transformers (an adapter with plain peft), and compares: both rates, and every item on which the two
differ, with the cause. No network is used. Afterwards the harness itself can be called on that folder:

lm_eval --model hf --model_args pretrained=RUN/model --include_path RUN/standard --tasks tunix_rt_test
"""

from __future__ import annotations

import argparse
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunix_rt.config.format import FormatConfig, TemplateFormat, ThinkChatFormat, ThinkFormat, pieces
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.errors import InputError, TunixError
from tunix_rt.evaluation.statistics import wilson
from tunix_rt.experiment import recorded_config
from tunix_rt.files import JsonObject, write_json, write_jsonl, write_text
from tunix_rt.hints import install
from tunix_rt.inference.trained import trained_model
from tunix_rt.models.sources import opened
from tunix_rt.runs.folder import RunFolder, find_run
from tunix_rt.terminal import out, say, visible
from tunix_rt.traces.prediction import Prediction, read_items, read_predictions
from tunix_rt.traces.prepared import PreparedData

TASK = "tunix_rt_test"
METRIC = "exact_match"
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_EVALUATE_OFFLINE")
NUMBER = r"-?[$]?[0-9][0-9,]*(?:\.[0-9]+)?"
MARKED = {
    "hashes": (r"####[ \t]*([^\n]*)", 0),
    "boxed": (r"\\boxed\{([^{}]*)\}", -1),
    "phrase": (r"(?i)\banswer(?: is|:)[ \t]*([^\n]*?)(?=[.!](?:\s|\Z)|\n|\Z)", 0),
    "fence": (r"(?s)```[^\n]*\n(.*?)```", -1),
    "last_number": (NUMBER, -1),
}
"""Marker of `evaluation.extract` → the same as a filter of the harness: pattern, and which match."""
READ = {
    "think": (r"(?s)</think>\s*(.*)", 0),
    "boxed": MARKED["boxed"],
    "lines": (r"([^\n]+)\s*\Z", -1),
    "whole": (r"(?s)(.+)", 0),
}
"""Reader of a format → the same; the others look for a marked line."""
MARKED_LINE = (r"(?i)(?:####|answer(?: is|:))[ \t*]*([^\n]*?)\.?\**(?:\n|\Z)", -1)


@dataclass(frozen=True, slots=True)
class Difference:
    """An item with two verdicts."""

    id: str
    reference: str
    ours: bool
    theirs: bool
    cause: str
    our_answer: str | None
    their_answer: str


def answer_filter(config: ExperimentConfig) -> tuple[str, int]:
    """The first of `evaluation.extract` as a regular expression of the harness, and which of its matches counts."""
    marker = config.evaluation.extract[0]
    if marker != "format":
        return MARKED[marker]
    if config.format.reader is not None:
        return READ.get(config.format.reader, MARKED_LINE)
    return _layout_filter(config.format)


def _layout_filter(format: FormatConfig) -> tuple[str, int]:
    if isinstance(format, ThinkFormat | ThinkChatFormat):
        return READ["think"]
    if isinstance(format, TemplateFormat):
        (before,), behind = pieces("answer", format.answer)
        step_end = pieces("step", format.step)[1]
    else:
        before, behind, step_end = format.answer_start, "", format.step_end
    return rf"(?s)\A(?:.*{re.escape(step_end)})?{re.escape(before)}(.*?){re.escape(behind)}\Z", 0


def task_of(config: ExperimentConfig, data: Path) -> JsonObject:
    """The task as the harness reads it from YAML; `data` holds `id`, `prompt` and `reference` of each item."""
    pattern, which = answer_filter(config)
    numeric = config.evaluation.decisive.kind in ("number", "math")
    ignored = {"regexes_to_ignore": [",", r"\$", r"\.$"]} if numeric else {}  # as in the harness's gsm8k.yaml
    return {
        "task": TASK,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "generate_until",
        "num_fewshot": 0,
        "doc_to_text": "prompt",
        "doc_to_target": "reference",
        "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": config.generation.max_new_tokens},
        "filter_list": [
            {
                "name": "answer",
                "filter": [
                    {"function": "regex", "regex_pattern": pattern, "group_select": which},
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [
            {"metric": METRIC, "aggregation": "mean", "higher_is_better": True, "ignore_case": True, **ignored}
        ],
        "metadata": {"version": 1},
    }


def write_task(config: ExperimentConfig, predictions: Sequence[Prediction], folder: Path) -> None:
    """`TASK.yaml` and its data. Raises InputError if the run's answers are not greedy: nothing could be compared."""
    if config.generation.temperature > 0 or config.generation.num_return_sequences > 1:
        raise InputError(
            "the run's answers are sampled, the harness's are greedy: `predict RUN generation=greedy` first"
        )
    import yaml

    rows = ({"id": p.id, "prompt": p.prompt, "reference": p.reference} for p in predictions if p.error is None)
    data = (folder / f"{TASK}.jsonl").resolve()
    write_jsonl(data, rows)
    write_text(folder / f"{TASK}.yaml", yaml.safe_dump(task_of(config, data), sort_keys=False, allow_unicode=True))


def run_harness(folder: Path, model: Path, adapter: Path | None, dtype: str, batch_size: int) -> JsonObject:
    """Results of the harness: `samples` and `results` of the task. Raises InputError if it is not installed."""
    os.environ |= dict.fromkeys(OFFLINE, "1") | {"HF_DATASETS_CACHE": str(folder / "cache")}
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise InputError(f"lm-evaluation-harness is not installed ({error}): {install('standard')}") from None
    import torch

    where = {"pretrained": str(model), "dtype": dtype, "add_bos_token": False}  # the prompt's text has it
    where |= {} if adapter is None else {"peft": str(adapter)}
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found: Any = simple_evaluate(
        "hf", model_args=where, tasks=[TASK], task_manager=manager, batch_size=batch_size, device=device
    )
    return {"samples": found["samples"][TASK], "results": found["results"][TASK]}


def differences(
    predictions: Mapping[str, Prediction], items: Mapping[str, JsonObject], samples: Sequence[JsonObject]
) -> Iterator[Difference]:
    """The items whose verdict is not the same, in the order of the harness."""
    for sample in samples:
        name, theirs = sample["doc"]["id"], bool(sample[METRIC])
        item, answer = items[name], str(sample["filtered_resps"][0])
        if bool(item["correct"]) != theirs:
            cause = _cause(predictions[name], item, str(sample["resps"][0][0]), answer)
            yield Difference(name, item["reference"], item["correct"], theirs, cause, item["extracted"], answer)


def _cause(prediction: Prediction, item: JsonObject, text: str, answer: str) -> str:
    ours = prediction.completion
    if text != ours:
        at = next((i for i, (a, b) in enumerate(zip(text, ours, strict=False)) if a != b), min(len(text), len(ours)))
        return f"another text from character {at} on: ours {ours[at : at + 20]!r}, theirs {text[at : at + 20]!r}"
    if item["extracted"] is None:
        return f"the same text, in which we find no answer ({item['reason']})"
    if item["extracted"].strip() != answer:
        return "the same text, in which another answer is found"
    return f"the same answer, which our scorer judges otherwise ({item['reason']})"


def compared(run: RunFolder, harness: JsonObject) -> JsonObject:
    """Both rates with their 95 % intervals, and the items that differ."""
    predictions = {p.id: p for p in read_predictions(run.predictions)}
    items = {item["id"]: item for item in read_items(run.items)}
    samples = harness["samples"]
    right = {
        "ours": sum(bool(items[sample["doc"]["id"]]["correct"]) for sample in samples),
        "harness": sum(bool(sample[METRIC]) for sample in samples),
    }
    rates = {name: _rate(k, len(samples)) for name, k in right.items()}
    rates["harness"]["stderr"] = harness["results"][f"{METRIC}_stderr,answer"]
    texts = sum(str(s["resps"][0][0]) == predictions[s["doc"]["id"]].completion for s in samples)
    found = [asdict(difference) for difference in differences(predictions, items, samples)]
    return {"run": run.name, **rates, "n": len(samples), "same_text": texts, "differences": found}


def _rate(k: int, n: int) -> JsonObject:
    interval = wilson(k, n)
    return {"value": k / n, "k": k, "n": n, "low": interval.low, "high": interval.high}


def show(result: JsonObject) -> None:
    """The comparison as lines of text."""
    for name in ("ours", "harness"):
        rate = result[name]
        spread = f"[{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"
        own = f", its own standard error {100 * rate['stderr']:.2f}" if isinstance(rate.get("stderr"), float) else ""
        out(f"{name:8} {100 * rate['value']:.1f} % {spread}, {rate['k']} of {rate['n']}{own}")
    out(f"the same text: {result['same_text']} of {result['n']}")
    out(f"other verdicts: {len(result['differences'])} of {result['n']}")
    for cause, count in Counter(_kind(d["cause"]) for d in result["differences"]).most_common():
        out(f"  {count} × {cause}")
    for d in result["differences"]:
        verdicts = f"ours {'right' if d['ours'] else 'wrong'}, harness {'right' if d['theirs'] else 'wrong'}"
        answers = f"reference {d['reference']!r}, ours {d['our_answer']!r}, harness {d['their_answer']!r}"
        out(visible(f"{d['id']}: {verdicts}; {answers}: {d['cause']}"))


def _kind(cause: str) -> str:
    return re.split(r" from character| \(", cause)[0]


def main(arguments: list[str] | None = None) -> int:
    """`python -m benchmarks.standard`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("run", help="a name, a prefix, `last`, or a folder")
    parser.add_argument("--root", type=Path, default=Path("runs"), help="folder of the runs (default %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="prompts at once (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number to this file")
    given = parser.parse_args(arguments)
    try:
        run = find_run(given.root, given.run)
        config = recorded_config(run)
        folder = run.path / "standard"
        write_task(config, list(read_predictions(run.predictions)), folder)
        model, adapter = opened(trained_model(run), PreparedData(run.data_folder).model_folder)
        say(f"{run.name}: lm-evaluation-harness on {folder}")
        result = compared(run, run_harness(folder, model, adapter, config.backend.precision, given.batch_size))
    except TunixError as error:
        say(f"error: {error}")
        return error.exit_code
    show(result)
    write_json(given.json or folder / "result.json", result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
