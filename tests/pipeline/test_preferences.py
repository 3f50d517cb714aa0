"""A run that learns from preferences: it learns, and everything that takes a run takes this one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.conftest import Person
from tests.preferences.conftest import WORDS, lines_of, write_sums

LEARNS = (*WORDS, "backend=torch", "name=liked", "training.max_steps=40", "training.evaluate_every=20")


@pytest.mark.acceptance
def test_a_run_learns_what_is_preferred_and_is_a_run_like_any_other(person: Person) -> None:
    write_sums(person.folder)
    done = person.types(*LEARNS)
    assert done.code == 0, done.err
    run = person.run_folder("liked")
    lines = lines_of(run / "metrics.jsonl")
    steps, evaluations = ([line for line in lines if name in line] for name in ("train/loss", "eval/loss"))
    assert len(steps) == 40 and len(evaluations) == 2
    assert steps[-1]["preference/accuracy"] == 1.0
    assert steps[-1]["train/loss"] < 0.3 < 0.69 < steps[0]["train/loss"]
    assert evaluations[-1]["eval/preference_accuracy"] >= 0.8, "the better ones begin with `so`"
    assert {"eval/accuracy", "eval/preference_margin", "eval/preference_chosen"} <= evaluations[-1].keys()

    shown = person.types("rows", "liked", "3", "--json")
    assert shown.code == 0 and len(json.loads(shown.out)["traces"]) == 8
    assert "rejected" in person.types("rows", "liked", "3").out
    looked = person.types("traces", *LEARNS, "-n", "1")
    assert "training pairs" in looked.out and looked.out.count("of them targets") == 2

    for words in (("export", "liked", "liked.zip"), ("verify", "liked.zip"), ("reproduce", "liked")):
        done = person.types(*words)
        assert done.code == 0, done.err
    asked = person.types("predict", "liked", "generation.max_new_tokens=9")
    assert asked.code == 0, asked.err


def sampled(person: Person, verdicts: dict[str, list[bool]], split: str = "test") -> Path:
    """A finished run whose records are written over: answers to prompts with these verdicts, the likelier the later."""
    (run,) = (person.folder / "runs" / "quickstart").iterdir()
    first = lines_of(run / "predictions.jsonl")[0]
    item = lines_of(run / "items.jsonl")[0]
    (traces,) = person.folder.glob(f"data/*/*/traces/{split}.jsonl")
    names = [line["id"] for line in lines_of(traces)]
    predictions, items = list[dict[str, Any]](), list[dict[str, Any]]()
    for name, row in zip(names, verdicts.values(), strict=False):
        for sample, right in enumerate(row):
            made = {"id": name, "sample": sample, "completion": f"{name}|{sample}", "finish_reason": "stop"}
            predictions.append(first | made | {"logprobs": [-1.0 / (sample + 1)], "token_ends": [3]})
            items.append(item | {"id": name, "sample": sample, "correct": right, "reason": "wrong"})
    for file, lines in (("predictions", predictions), ("items", items)):
        (run / f"{file}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    config = (run / "config.yaml").read_text("utf-8").replace("num_return_sequences: 1", "num_return_sequences: 4")
    config = config.replace("temperature: 0.0", "temperature: 1.0").replace("split: test", f"split: {split}")
    (run / "config.yaml").write_text(config, "utf-8")
    return run


@pytest.mark.usefixtures("trained")
def test_pairs_are_the_best_against_the_worst_and_ties_are_counted(person: Person) -> None:
    alone = person.types("pairs", "last")
    assert alone.code != 0 and "has one answer to each prompt" in alone.err
    run = sampled(
        person,
        {
            "mixed": [True, False, True, False],
            "all right": [True] * 4,
            "all wrong": [False] * 4,
            "one": [True],
        },
    )
    names = list(dict.fromkeys(line["id"] for line in lines_of(run / "predictions.jsonl")))
    done = person.types("pairs", "last", "--out", "own.jsonl", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == {
        "file": "own.jsonl",
        "test": None,
        "pairs": 1,
        "skipped": {"prompts whose answers all have one verdict": 2, "prompts with fewer than two whole answers": 1},
    }
    (pair,) = lines_of(Path("own.jsonl"))
    assert (pair["id"], pair["chosen"], pair["rejected"]) == (names[0], f"{names[0]}|2", f"{names[0]}|1")
    assert pair["meta"]["samples"] == [2, 1] and pair["meta"]["verdicts"] == [1.0, 0.0]
    assert "a model that learns from them cannot be tested on them" in done.err
    card = Path("own.md").read_text("utf-8")
    assert 'ranked_by: ["verdict", "confidence"]' in card and "sources:" in card
    before = Path("own.jsonl").read_bytes()
    person.types("pairs", "last", "--out", "own.jsonl")
    assert Path("own.jsonl").read_bytes() == before

    person.types("pairs", "last", "--out", "two.jsonl", "--most", "3", "--by", "sample")
    found = [(pair["chosen"], pair["rejected"]) for pair in lines_of(Path("two.jsonl"))]
    assert found == [(f"{names[0]}|0", f"{names[0]}|3"), (f"{names[0]}|2", f"{names[0]}|1")]

    data = ("dataset=files", "dataset.name=own", "dataset.source.train.path=own.jsonl", "dataset.split.validation=0.0")
    learned = person.types("traces", *data, "dataset.split.test=0.0", "objective=dpo", "training.row_length=null")
    assert learned.code == 0, learned.err


@pytest.mark.usefixtures("trained")
def test_what_learns_from_pairs_is_tested_as_the_run_was_and_read_as_it_was(person: Person) -> None:
    """Prevents: 0 % of answers that are all right, since another reader looks for them; and a ranking that is none."""
    sampled(person, {"mixed": [True, False]}, split="train")
    done = person.types("pairs", "last", "--out", "own.jsonl")
    assert done.code == 0, done.err
    (before,) = person.folder.glob("data/*/*/traces/test.jsonl")
    assert lines_of(Path("own.test.jsonl")) == lines_of(before)
    learn = done.out.partition("-m tunix_rt ")[2].partition(" model.source=")[0].split()
    assert {"format.reader=format", "dataset.source.test.path=own.test.jsonl"} <= {*learn}
    assert "own.test.jsonl" in json.loads(person.types("pairs", "last", "--out", "own.jsonl", "--json").out)["test"]
    shown = person.types("traces", *learn, "dataset.split.validation=0.0", "-n", "1")
    assert shown.code == 0, shown.err
