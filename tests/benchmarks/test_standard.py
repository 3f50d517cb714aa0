"""The task that lm-evaluation-harness is given, the comparison with it, and once the harness itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.standard import TASK, answer_filter, compared, task_of, write_task
from tests.conftest import TOY, config_of
from tunix_rt.batches.reader import Question
from tunix_rt.errors import InputError
from tunix_rt.evaluation.extract import extract
from tunix_rt.files import JsonObject, write_jsonl
from tunix_rt.runs.folder import RunFolder
from tunix_rt.traces.format import formatter
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.trace import Trace


def prediction(name: str, completion: str, answer: str | None = None) -> Prediction:
    asked = Question(Trace(name, f"{name}=", (), "12"), 0, f"{name}=\n", None, None)  # type: ignore[arg-type]
    failed = replace(asked, ids=()).failed("")  # type: ignore[arg-type]
    return replace(failed, completion=completion, answer=answer, finish_reason="stop", error=None)


@pytest.mark.parametrize(
    ("words", "completion"),
    [
        ([], "3*4=12;0+0=00;12"),
        (["format.answer_start='>'"], "3*4=12;>12"),
        (["format=lines"], "3*4 = 12\nAnswer: 12"),
        (["format=lines"], "Answer: 12"),
        (["format=template"], "1. a; b\n2. c\nAnswer: 12"),
        (["format=template", "format.answer='({answer})'"], "1. a; b\n(12)"),
        (["format=think"], "<think>\na\n</think>\n\n12"),
        (["format=lines", "format.reader=boxed"], "a\n\\boxed{12}"),
        (["format=lines", "format.reader=auto"], "a\n**Answer:** 12"),
        (["format=lines", "format.reader=marker"], "a\n#### 12"),
        (["format=lines", "format.reader=lines"], "a\n12\n"),
        (["format=lines", "format.reader=whole"], " 12"),
        (["evaluation.extract=[hashes]"], "a\n#### 12\nQ: b\n#### 13"),
        (["evaluation.extract=[boxed,hashes]"], "so \\boxed{12}, as it was"),
        (["evaluation.extract=[phrase]"], "So the answer is 12. And more"),
        (["evaluation.extract=[fence]"], "```py\n12\n```"),
        (["evaluation.extract=[last_number]"], "3 times 4 is 12 apples"),
    ],
)
def test_the_filter_finds_what_we_find(words: list[str], completion: str) -> None:
    config = config_of(words)
    pattern, which = answer_filter(config)
    found = re.findall(pattern, completion)[which]  # as `RegexFilter` in lm_eval/filters/extraction.py
    parsed = formatter(config.format, None).parse(completion)
    ours = extract(prediction("a", completion, parsed.answer), config.evaluation.extract, config.evaluation.decisive)
    assert ours is not None
    assert found.strip() == ours.text.strip() == "12"


def test_the_task_has_our_prompts_and_limits(tmp_path: Path) -> None:
    config = config_of(["evaluation=number"])
    write_task(config, [prediction("3*4", "12"), replace(prediction("6*2", ""), error="too long")], tmp_path)
    task = yaml.safe_load((tmp_path / f"{TASK}.yaml").read_text())
    assert task == task_of(config, tmp_path / f"{TASK}.jsonl")
    assert (task["num_fewshot"], task["doc_to_text"], task["doc_to_target"]) == (0, "prompt", "reference")
    assert task["generation_kwargs"] == {"until": [], "do_sample": False, "max_gen_toks": 80}
    assert task["metric_list"][0]["regexes_to_ignore"] == [",", r"\$", r"\.$"]
    rows = [json.loads(line) for line in (tmp_path / f"{TASK}.jsonl").read_text().splitlines()]
    assert rows == [{"id": "3*4", "prompt": "3*4=\n", "reference": "12"}]
    with pytest.raises(InputError, match="are sampled"):
        write_task(config_of(["generation=sample"]), [], tmp_path)


def test_every_other_verdict_has_its_cause(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "quickstart" / "0123456789ab")
    run.path.mkdir(parents=True)
    texts = ["12", "13", "12", "1;12", "twelve"]
    write_jsonl(run.predictions, [prediction(str(n), text).to_json() for n, text in enumerate(texts)])
    ours: list[tuple[bool, str | None]] = [(True, "12"), (False, "13"), (False, None), (False, "1"), (True, "twelve")]
    items = [
        {"id": str(n), "sample": 0, "correct": right, "extracted": text, "reference": "12", "reason": "why"}
        for n, (right, text) in enumerate(ours)
    ]
    write_jsonl(run.items, items)
    theirs: list[tuple[str, str, float]] = [
        ("12", "12", 1.0),
        ("12", "12", 1.0),
        ("12", "12", 1.0),
        ("1;12", "12", 1.0),
        ("twelve", "twelve", 0.0),
    ]
    samples = [
        {"doc": {"id": str(n)}, "resps": [[text]], "filtered_resps": [answer], "exact_match": right}
        for n, (text, answer, right) in enumerate(theirs)
    ]
    found: JsonObject = compared(run, {"samples": samples, "results": {"exact_match_stderr,answer": 0.2}})
    assert [(d["id"], d["ours"], d["theirs"], d["cause"]) for d in found["differences"]] == [
        ("1", False, True, "another text from character 1 on: ours '3', theirs '2'"),
        ("2", False, True, "the same text, in which we find no answer (why)"),
        ("3", False, True, "the same text, in which another answer is found"),
        ("4", True, False, "the same answer, which our scorer judges otherwise (why)"),
    ]
    assert (found["ours"]["k"], found["harness"]["k"], found["n"], found["same_text"]) == (2, 4, 5, 4)
    assert found["harness"]["low"] < 0.8 < found["harness"]["high"]


@pytest.mark.acceptance
@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("model/adapter=lora",)], ids=["all weights", "adapter"])
def test_the_harness_judges_a_run_as_we_do(work: Path, root: Path, words: tuple[str, ...]) -> None:
    """Needs the extra `standard`, which `tests/acceptance/run` installs."""
    paths = os.environ | {"PYTHONPATH": str(root)}

    def call(*arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", *arguments], env=paths, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]

    call("tunix_rt", *TOY, "backend=torch", "training.max_steps=60", "dataset.limit.test=8", *words)
    call("benchmarks.standard", "last", "--json", "made.json")
    made: Any = json.loads((work / "made.json").read_text())
    assert (made["n"], made["same_text"]) == (8, 8)
    assert all(d["cause"].startswith("the same text, in which we find no answer") for d in made["differences"])
