"""A dataset is collected with an account of every record; what is wrong is an error unless a switch allows it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tunix_rt.config.dataset import ArithmeticSource, DatasetConfig, FilesSource, LimitConfig, SplitConfig
from tunix_rt.errors import DataError
from tunix_rt.files import read_jsonl, sha256_file
from tunix_rt.traces.card import card
from tunix_rt.traces.dataset import Collected, collect

MakeDataset = Callable[..., DatasetConfig]
MakeJsonl = Callable[..., FilesSource]


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in records), "utf-8")
    return path


def item(prompt: str, **changed: Any) -> dict[str, Any]:
    return {"prompt": prompt, "steps": [], "final_answer": "a"} | changed


def is_accounted_for(collected: Collected) -> bool:
    counts = collected.manifest["counts"]
    parts = [*counts["kept"].values(), *counts["rejected"].values(), counts["unused"]]
    return bool(counts["read"] == sum(parts))


@pytest.mark.slow
def test_the_quickstart_holds_out_both_orders_of_a_problem(
    arithmetic: Callable[..., ArithmeticSource], dataset: MakeDataset
) -> None:
    limits = LimitConfig(train=5_000, validation=None, test=500)
    config = dataset(arithmetic(), split=SplitConfig(validation=0.02, test=0.08), limit=limits)
    collected = collect(config)
    groups = {split: {t.meta["group"] for t in traces} for split, traces in collected.splits.items()}
    assert {split: len(traces) for split, traces in collected.splits.items()}["test"] == 500
    assert groups["test"].isdisjoint(groups["train"] | groups["validation"])
    assert groups["validation"].isdisjoint(groups["train"])
    assert collected.manifest["counts"]["kept"]["train"] == 5_000 and is_accounted_for(collected)
    arms = {steps: collect(dataset(arithmetic(steps=steps), split=config.split, limit=limits)) for steps in ("none",)}
    assert [t.id for t in arms["none"].splits["test"]] == [t.id for t in collected.splits["test"]]
    assert [t.id for t in arms["none"].splits["train"]] == [t.id for t in collected.splits["train"]]
    other = collect(replace(config, seed=1))
    assert {t.id for t in other.splits["test"]} != {t.id for t in collected.splits["test"]}


def test_more_data_moves_no_trace_from_test_to_train(tmp_path: Path, dataset: MakeDataset, jsonl: MakeJsonl) -> None:
    def splits(count: int) -> dict[str, set[str]]:
        source = jsonl(write(tmp_path / "t.jsonl", *(item(f"question {i}") for i in range(count))))
        limits = LimitConfig(train=None, validation=None, test=30)
        collected = collect(dataset(source, split=SplitConfig(validation=0.1, test=0.2), limit=limits))
        return {split: {trace.id for trace in traces} for split, traces in collected.splits.items()}

    few, many = splits(300), splits(600)
    assert len(few["test"]) == len(many["test"]) == 30
    assert few["train"] < many["train"] and few["validation"] < many["validation"]
    assert not few["test"] & (many["train"] | many["validation"]) and few["test"] != many["test"]


def test_bad_lines_are_an_error_that_names_them_or_are_left_out_and_listed(
    tmp_path: Path, dataset: MakeDataset, jsonl: MakeJsonl
) -> None:
    path = write(
        tmp_path / "t.jsonl", item("1"), item("2", steps=None), "{\n", item("3", final_answer=3.5), item("4"), "x\n"
    )
    with pytest.raises(DataError) as caught:
        collect(dataset(jsonl(path)))
    message = str(caught.value)
    assert message.startswith(f"4 of 6 records are not valid traces: {path}:2: steps: expected a list, got null; ")
    assert message.endswith("; …; dataset.on_invalid=skip leaves them out") and "\n" not in message
    collected = collect(dataset(jsonl(path), on_invalid="skip"))
    assert [(bad["where"], bad["kind"]) for bad in collected.manifest["rejected"]] == [
        (f"{path}:{n}", "invalid") for n in (2, 3, 4, 6)
    ]
    assert collected.manifest["counts"]["rejected"] == {"invalid": 4} and is_accounted_for(collected)
    assert len(collected.splits["train"]) == 2


def test_a_repeated_prompt_is_an_error_or_the_first_stays(
    tmp_path: Path, dataset: MakeDataset, jsonl: MakeJsonl
) -> None:
    path = write(tmp_path / "t.jsonl", item("Why?", final_answer="b"), item("x"), item("WHY? ", final_answer="c"))
    with pytest.raises(DataError, match=f"1 prompts occur again: {path}:3: same prompt as {path}:1; .*=first keeps"):
        collect(dataset(jsonl(path)))
    collected = collect(dataset(jsonl(path), on_duplicate="first"))
    assert {t.final_answer for t in collected.splits["train"] if t.prompt.startswith("W")} == {"b"}
    assert collected.manifest["counts"]["rejected"] == {"duplicate": 1} and is_accounted_for(collected)


def test_an_evaluation_set_may_ask_again_in_another_spelling_but_not_in_the_same(
    tmp_path: Path, dataset: MakeDataset, jsonl: MakeJsonl
) -> None:
    train = write(tmp_path / "t.jsonl", item("x"))
    test = write(tmp_path / "e.jsonl", item("Capital of France?"), item("Capital of FRANCE?"))
    assert collect(dataset(jsonl(train, test=test))).manifest["counts"]["kept"]["test"] == 2
    test = write(tmp_path / "e.jsonl", item("Capital of France?"), item("Capital of France?"))
    with pytest.raises(DataError, match="prompts occur again"):
        collect(dataset(jsonl(train, test=test)))


def test_ids_are_unique_and_evaluation_keeps_its_own(tmp_path: Path, dataset: MakeDataset, jsonl: MakeJsonl) -> None:
    train = write(tmp_path / "t.jsonl", *(item(f"q{i}", id=name) for i, name in enumerate(["a", "a-1", "a", "a", "b"])))
    test = write(tmp_path / "e.jsonl", item("e", id="a"))
    collected = collect(dataset(jsonl(train, test=test)))
    assert [trace.id for trace in collected.splits["test"]] == ["a"]
    names = {trace.prompt: trace.id for trace in collected.splits["train"]}
    assert names == {"q0": "a-1", "q1": "a-1-1", "q2": "a-2", "q3": "a-3", "q4": "b"}


@pytest.mark.parametrize("shared", ["What is 2 + 2?", "one two three four five six"])
def test_what_training_shares_with_evaluation_is_an_error_or_dropped_or_allowed(
    tmp_path: Path, dataset: MakeDataset, jsonl: MakeJsonl, shared: str
) -> None:
    train = write(tmp_path / "t.jsonl", item("other"), item(f"{shared.upper()}"))
    test = write(tmp_path / "e.jsonl", item(shared, id="e"))
    source = jsonl(train, test=test)
    with pytest.raises(DataError) as caught:
        collect(dataset(source, overlap_ngram=4))
    assert f"1 training prompts overlap with 1 of evaluation: {train}:2 shares " in str(caught.value)
    assert f"with test {test}:1; dataset.on_overlap=drop_train drops them, =allow keeps them" in str(caught.value)
    dropped = collect(dataset(source, overlap_ngram=4, on_overlap="drop_train"))
    assert [trace.prompt for trace in dropped.splits["train"]] == ["other"]
    assert [(bad["where"], bad["kind"]) for bad in dropped.manifest["rejected"]] == [(f"{train}:2", "overlap")]
    assert dropped.manifest["counts"]["overlaps_allowed"] == 0 and is_accounted_for(dropped)
    allowed = collect(dataset(source, overlap_ngram=4, on_overlap="allow"))
    assert len(allowed.splits["train"]) == 2 and allowed.manifest["rejected"] == []
    assert allowed.manifest["counts"]["overlaps"] == {"training": 1, "evaluation": 1}
    assert allowed.manifest["counts"]["overlaps_allowed"] == 1


def test_a_validation_prompt_that_test_asks_too_is_dropped_like_training(
    tmp_path: Path, dataset: MakeDataset, jsonl: MakeJsonl
) -> None:
    train = write(tmp_path / "t.jsonl", *(item(f"question {i}") for i in range(40)))
    test = write(tmp_path / "e.jsonl", *(item(f"question {i}", id=f"e{i}") for i in range(20)))
    config = dataset(jsonl(train, test=test), split=SplitConfig(validation=0.5, test=0.0), on_overlap="drop_train")
    collected = collect(config)
    kept = {trace.prompt for split in ("train", "validation") for trace in collected.splits[split]}
    assert kept == {f"question {i}" for i in range(20, 40)}
    assert is_accounted_for(collected) and collected.splits["validation"]


def test_a_declared_split_that_comes_out_empty_is_an_error(
    tmp_path: Path, dataset: MakeDataset, jsonl: MakeJsonl
) -> None:
    path = write(tmp_path / "t.jsonl", item("a"), item("b"))
    with pytest.raises(DataError) as caught:
        collect(dataset(jsonl(path), split=SplitConfig(validation=0.0, test=0.001)))
    assert "nothing is left for test (2 records read; train 2, validation 0, test 0)" in str(caught.value)
    assert "raise dataset.split.test (0.001) or give more data" in str(caught.value)
    with pytest.raises(DataError, match="nothing is left for train"):
        collect(dataset(jsonl(write(tmp_path / "bad.jsonl", "x\n")), on_invalid="skip"))
    with pytest.raises(DataError, match="nothing is left for train"):
        collect(dataset(jsonl(path), split=SplitConfig(validation=0.0, test=0.9999)))


def test_the_manifest_is_json_and_names_files_by_content(
    tmp_path: Path, dataset: MakeDataset, jsonl: MakeJsonl, arithmetic: Callable[..., ArithmeticSource]
) -> None:
    path = write(tmp_path / "t.jsonl", item("a"), item("b"), item("a"))
    manifest = collect(dataset(jsonl(path), on_duplicate="first")).manifest
    assert json.loads(json.dumps(manifest))["files"] == [
        {"path": str(path), "split": "train", "sha256": sha256_file(path)}
    ]
    assert manifest["rejected"] == [{"where": f"{path}:3", "kind": "duplicate", "reason": f"same prompt as {path}:1"}]
    generated = collect(dataset(arithmetic(num_traces=5))).manifest
    assert (generated["source"]["kind"], generated["source"]["version"], generated["files"]) == ("arithmetic", 1, [])


def prompts(file: Path, field: str) -> list[str]:
    return [record[field] for _, record in read_jsonl(file)]


def test_the_real_datasets_are_collected_as_their_experiments_declare(
    real_data: Path, dataset: MakeDataset, jsonl: MakeJsonl
) -> None:
    folder = real_data / "tunix_rt_v2"
    source = jsonl(folder / "traces.jsonl", test=folder / "eval.jsonl", test_adapter="evaluation_set")
    asked = prompts(folder / "traces.jsonl", "prompt")
    repeated = len(asked) - len(set(asked))
    with pytest.raises(DataError, match=f"{repeated} prompts occur again"):
        collect(dataset(source))
    counts = collect(dataset(source, on_duplicate="first")).manifest["counts"]
    assert counts["kept"] == {"train": len(set(asked)), "validation": 0, "test": 100}
    assert counts["rejected"] == {"duplicate": repeated} and counts["overlaps"] == {"training": 0, "evaluation": 0}

    folder = real_data / "gsm8k"
    source = jsonl(folder / "train.jsonl", "gsm8k", test=folder / "test.jsonl")
    train, test = (len(prompts(folder / f"{name}.jsonl", "question")) for name in ("train", "test"))
    with pytest.raises(DataError, match="4 training prompts overlap with 3 of evaluation"):
        collect(dataset(source))
    counts = collect(dataset(source, on_overlap="drop_train")).manifest["counts"]
    assert counts["read"] == train + test and counts["kept"] == {"train": train - 4, "validation": 0, "test": test}


def test_findings_are_in_the_manifest_and_on_the_card(
    tmp_path: Path, jsonl: Callable[..., FilesSource], dataset: Callable[..., DatasetConfig]
) -> None:
    long = "Tom has three red apples and buys {} more. How many apples does Tom have now, after the market?"
    rows = [
        {"prompt": long.format("five"), "completion": "8"},
        {"prompt": long.format("six"), "completion": "9"},
        {"prompt": "What is 2 + 2?", "completion": "4"},
        {"prompt": "What is 2 + 2?", "completion": "5"},
        {"prompt": "Say the secret word abracadabra!", "completion": "the secret word abracadabra"},
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    config = dataset(jsonl(path, "auto"), on_duplicate="keep", near_duplicates=0.5, on_near_duplicate="drop")
    collected = collect(config)
    counts = {name: found["count"] for name, found in collected.manifest["findings"].items()}
    assert counts == {
        "one question with different answers": 1,
        "the answer stands in the prompt": 1,
        "near-duplicates in training": 1,
    }
    assert collected.manifest["counts"]["rejected"] == {"near_duplicate": 1} and len(collected.splits["train"]) == 4
    kept = collect(dataset(jsonl(path, "auto"), on_duplicate="keep", near_duplicates=0.5))
    assert len(kept.splits["train"]) == 5
    split = {"count": 4, "tokens": 9, "target_tokens": 3, "sha256": "0" * 64}
    manifest = collected.manifest | {"name": "mine", "splits": {"train": split}}
    manifest["counts"]["dropped"] = {"overlong": 2}
    shown = card(manifest)
    for line in (
        "5 records were read",
        "| near_duplicate | 1 |",
        "| overlong (when tokenised) | 2 |",
        "| train | 4 | 9 | 3 |",
    ):
        assert line in shown
    assert "('4') and" in shown and str(path) in shown


def test_many_rows_of_one_id_take_linear_time(
    tmp_path: Path, jsonl: Callable[..., FilesSource], dataset: Callable[..., DatasetConfig]
) -> None:
    path = tmp_path / "same.jsonl"
    path.write_text("".join(json.dumps({"prompt": "Q", "completion": str(i)}) + "\n" for i in range(4000)), "utf-8")
    begin = time.process_time()
    traces = collect(dataset(jsonl(path, "auto"), on_duplicate="keep")).splits["train"]
    assert len({trace.id for trace in traces}) == 4000 and time.process_time() - begin < 10
