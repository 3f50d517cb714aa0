"""Run folders with every field that the page shows, written by hand: no model, no scorer, any number of prompts.

`python -m tests.report.made FOLDER [PROMPTS]` makes two of them to look at.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from tunix_rt.files import JsonObject, write_json, write_jsonl, write_text
from tunix_rt.runs.folder import RunFolder

CONFIG = """\
name: made
seed: 0
generation: {split: test, max_new_tokens: 80, temperature: 0.0, num_return_sequences: 1}
backend: {name: jax, precision: float32}
model: {source: {kind: fresh, family: llama, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4}}
dataset: {name: sums, source: {kind: generated, operation: add, digits: 2}}
optimizer: {kind: adamw, learning_rate: 0.003}
schedule: {kind: cosine}
training: {max_steps: 300}
"""
HOSTILE = [
    "<script>window.pwned = 1</script>",
    "</script><script>window.pwned = 1</script><!--",
    "<img src=x onerror=window.pwned=1>",
    "{{ 7 * 7 }}{% raw %}",
    '" autofocus onfocus="window.pwned=1',
    "]]>&lt;b&gt;&#60;b&#62;",
    "a\u2028b\u2029c\x00d\x1b[2J",
    "\u202egnp.exe\u2066\u200b",
    "\ud83d alone",
    "[link](javascript:window.pwned=1) ![x](http://example.org/x.png)",
    "__proto__",
]


"""What tries to get out of its place in a page."""
FIELDS = ("prompt", "reason", "extracted", "marker")
REASONS = ("other number", "other number", "other number", "no end token", "no answer found")


def rate(k: int, n: int) -> JsonObject:
    """A rate with an interval of about the right width; the page only shows it."""
    share, reach = k / n, 1.96 * math.sqrt(max(k / n * (1 - k / n), 0.25 / n) / n)
    return {"value": share, "k": k, "n": n, "low": max(share - reach, 0.0), "high": min(share + reach, 1.0)}


def answer(number: int, sample: int, right: bool, chance: random.Random) -> tuple[JsonObject, JsonObject]:
    """A prediction and its verdict: a sum in two steps."""
    left, right_hand = 10 + number % 89, 10 + 7 * number % 83
    total = left + right_hand
    given = total if right else total + chance.choice([-10, -1, 1, 10])
    tens = 10 * (left // 10 + right_hand // 10)
    ones = left % 10 + right_hand % 10
    steps = [f"{left // 10 * 10} + {right_hand // 10 * 10} = {tens}", f"{left % 10} + {right_hand % 10} = {ones}"]
    verdicts: list[bool | None] = [True, True]
    if not right and chance.random() < 0.6:
        place = chance.randrange(2)
        steps[place], verdicts[place] = steps[place] + "1", False
    if chance.random() < 0.1:
        steps.append("so we are nearly there")
        verdicts.append(None)
    reason = "same number" if right else chance.choice(REASONS)
    malformed = reason in ("no end token", "no answer found")
    completion = "\n".join(steps) + ("" if malformed else f"\n#### {given}")
    ends = list(range(1, len(completion) + 1, 1))
    logprobs = [round(math.log(chance.choice([1.0, 1.0, 0.999, 0.97, 0.8, 0.4, 0.05])), 6) for _ in ends]
    first = verdicts.index(False) if False in verdicts else None
    finish = "length" if reason == "no end token" else "stop"
    prediction: JsonObject = {
        "id": f"sums-{number:05}",
        "sample": sample,
        "prompt": f"{left} + {right_hand} = ?",
        "reference": str(total),
        "completion": completion,
        "steps": steps,
        "answer": None if malformed else str(given),
        "finish_reason": finish,
        "error": None,
        "num_prompt_tokens": 9,
        "num_new_tokens": len(ends),
        "logprobs": logprobs,
        "token_ends": ends,
    }
    item: JsonObject = {
        "id": prediction["id"],
        "sample": sample,
        "prompt": f"What is {left} + {right_hand}? Think step by step.",
        "correct": right,
        "reason": reason,
        "extracted": prediction["answer"],
        "marker": None if malformed else "hashes",
        "ambiguous": False,
        "reference": str(total),
        "scores": {"number": {"correct": right, "reason": reason}},
        "contains_answer": right,
        "finish_reason": finish,
        "malformed": malformed,
        "num_new_tokens": len(ends),
        "confidence": None if malformed else round(chance.betavariate(6, 2) if right else chance.betavariate(3, 2), 4),
        "step_checks": {
            "num_steps": len(steps),
            "num_checked": sum(verdict is not None for verdict in verdicts),
            "num_wrong": verdicts.count(False),
            "first_wrong": first,
            "verdicts": verdicts,
            "repeated": [],
            "unused": [1] if number % 17 == 0 else [],
            "contradiction": number % 23 == 0,
        },
        "slices": {"carries": str((ones > 9) + 0), "digits": str(len(str(total)))},
    }
    return prediction, item


def metrics_of(items: Sequence[JsonObject], samples: int) -> JsonObject:
    """Numbers of the shape of metrics.json, schema_version 3."""

    def share(name: str) -> JsonObject:
        return rate(sum(bool(item[name]) for item in items), len(items))

    groups: dict[str, dict[str, list[JsonObject]]] = {"carries": {}, "digits": {}}
    for item in items:
        for key, value in item["slices"].items():
            groups[key].setdefault(value, []).append(item)
    sure = sorted((i for i in items if i["confidence"] is not None), key=lambda item: -item["confidence"])
    bins = []
    for at in range(10):
        held = [i for i in sure if at / 10 <= i["confidence"] < (at + 1) / 10]
        mean = sum(i["confidence"] for i in held) / len(held) if held else None
        accuracy = rate(sum(i["correct"] for i in held), len(held)) if held else {"value": None}
        bins.append({"low": at / 10, "high": (at + 1) / 10, "n": len(held), "confidence": mean, "accuracy": accuracy})
    kept = [(part / 10, sure[: max(1, len(sure) * part // 10)]) for part in range(1, 11)]
    selective = [{"coverage": at, "accuracy": rate(sum(i["correct"] for i in some), len(some))} for at, some in kept]
    n = len(items)
    places: dict[str, list[bool]] = {}
    for item in items:
        for place, verdict in enumerate(item["step_checks"]["verdicts"]):
            if verdict is not None:
                places.setdefault(str(place), []).append(verdict)
    return {
        "schema_version": 3,
        "n": n,
        "prompts": n // samples,
        "missing": 0,
        "accuracy": share("correct"),
        "stop_rate": rate(sum(item["finish_reason"] == "stop" for item in items), n),
        "malformed_rate": share("malformed"),
        "contains_answer": share("contains_answer"),
        "steps": {"by_index": {place: rate(sum(right), len(right)) for place, right in places.items()}},
        "pass_at": {str(k): rate(round(n * (0.5 + k / 20)), n) for k in (1, 2, 3, 4)} if samples > 1 else {},
        "slices": {
            key: {value: rate(sum(i["correct"] for i in some), len(some)) for value, some in values.items()}
            for key, values in groups.items()
        },
        "calibration": {"ece": 0.081, "brier": 0.153, "bins": bins, "selective": selective},
        "faithfulness": {
            "prompts": n // samples,
            "by_share": {"truncated": {"0": rate(1, 2)}},
        }
        | {
            kind: {str(step): rate(round(n * (0.1 + step * slope)), n) for step in range(3)}
            for kind, slope in (("truncated", 0.35), ("corrupted", 0.2))
        },
    }


def write_log(run: RunFolder, steps: int) -> None:
    """A log of training, evaluated every twentieth of it."""
    chance = random.Random(7)
    lines: list[JsonObject] = []
    for step in range(1, steps + 1):
        loss = 3 * math.exp(-step / (steps / 6)) + 0.05 + chance.random() * 0.05
        rate_now = 3e-3 * min(step / 20, 1) * (1 - step / (steps + 1))
        lines.append({"step": step, "train/loss": loss, "train/learning_rate": rate_now})
        if step % (steps // 20) == 0:
            lines.append({"step": step, "eval/loss": loss + 0.04, "eval/accuracy": min(1.0, step / steps)})
    write_jsonl(run.metrics_log, lines)
    timed = [{"step": step, "time": 1.0, "tokens_per_second": 5000.0 + step % 50} for step in range(1, steps + 1)]
    write_jsonl(run.timings_log, timed)


def made_run(
    root: Path,
    prompts: int = 40,
    samples: int = 1,
    accuracy: float = 0.8,
    baseline: float | None = 0.2,
    name: str = "0123456789ab",
) -> RunFolder:
    """A finished run of `prompts` prompts; `baseline` is the accuracy before training, if it was asked then."""
    run = RunFolder(root / "made" / name)
    run.path.mkdir(parents=True)
    write_text(run.config, CONFIG)
    write_json(run.status_file, {"record_version": 2, "state": "finished", "started": 1.0})
    write_json(run.path / "stages.json", {"evaluate": {"state": "done"}})
    write_log(run, 300)
    for share, predictions, items, metrics in (
        (accuracy, run.predictions, run.items, run.metrics),
        (baseline, run.baseline_predictions, run.baseline_items, run.baseline_metrics),
    ):
        if share is None:
            continue
        chance = random.Random(f"{name} {share}")
        pairs = [answer(at, k, chance.random() < share, chance) for at in range(prompts) for k in range(samples)]
        write_jsonl(predictions, [prediction for prediction, _ in pairs])
        write_jsonl(items, [item for _, item in pairs])
        write_json(metrics, metrics_of([item for _, item in pairs], samples))
    return run


def hostile_run(root: Path) -> RunFolder:
    """A run whose prompts, completions, verdicts, names and values try to get out of their place."""
    run = made_run(root, prompts=len(HOSTILE), name="hostile")
    for predictions, items in ((run.predictions, run.items), (run.baseline_predictions, run.baseline_items)):
        for file, names in ((predictions, ("prompt", "completion", "answer", "error")), (items, FIELDS)):
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            for line, text in zip(lines, HOSTILE, strict=True):
                line |= {"id": text, "reference": text, **dict.fromkeys(names, text)}
                line |= {"slices": {text: text}, "scores": {}} if file == items else {"steps": [text]}
            file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    metrics = json.loads(run.metrics.read_text()) | {
        "slices": {text: dict.fromkeys(HOSTILE, rate(1, 2)) for text in HOSTILE}
    }
    run.metrics.write_text(json.dumps(metrics))
    return run


if __name__ == "__main__":
    made_run(Path(sys.argv[1]), int(sys.argv[2]))
    made_run(Path(sys.argv[1]), int(sys.argv[2]), accuracy=0.85, name="ba9876543210")
