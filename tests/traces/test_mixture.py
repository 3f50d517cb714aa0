"""Several sources in one dataset: each with its own shape, share of an epoch, and slice of the scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunix_rt.config.choices import SPLITS
from tunix_rt.config.load import check, compose
from tunix_rt.errors import ConfigError
from tunix_rt.traces.dataset import collect, times_seen


def write(folder: Path) -> None:
    said = [("user", "hi {}"), ("assistant", "ho")]
    talk = [{"messages": [{"role": r, "content": c.format(i)} for r, c in said]} for i in range(60)]
    pairs = [{"prompt": f"{i} + 1?", "completion": str(i + 1)} for i in range(60)]
    test = [{"prompt": f"{i} + 1?", "completion": str(i + 1)} for i in range(100, 110)]
    for name, rows in (("talk", talk), ("pairs", pairs), ("test", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def words(folder: Path, weight: float = 2.5) -> list[str]:
    sources = {
        "talk": {"weight": 0.5, "source": {"kind": "files", "train": {"path": str(folder / "talk.jsonl")}}},
        "sums": {
            "weight": weight,
            "source": {
                "kind": "files",
                "train": {"path": str(folder / "pairs.jsonl")},
                "test": {"path": str(folder / "test.jsonl")},
            },
        },
    }
    given = json.dumps(sources).replace('"', "")
    return ["dataset=mixture", "dataset.name=mixed", f"dataset.source.sources={given}", "tokenizer.characters=null"]


def test_each_source_is_split_by_itself_and_named(tmp_path: Path) -> None:
    write(tmp_path)
    config = check(compose(words(tmp_path)))
    assert config.format.reader == "auto"
    splits = collect(config.dataset).splits
    named = {split: [trace.meta["dataset"] for trace in splits[split]] for split in SPLITS}
    assert named["test"].count("sums") == 10, "its own test file, and nothing is carved from its training file"
    assert 0 < named["test"].count("talk") < 20 and set(named["validation"]) == {"talk", "sums"}
    seen = dict.fromkeys(("talk", "sums"), 0)
    for trace in splits["train"]:
        seen[trace.meta["dataset"]] += times_seen(trace, config.dataset)
    assert abs(seen["talk"] / named["train"].count("talk") - 0.5) < 0.2
    assert abs(seen["sums"] / named["train"].count("sums") - 2.5) < 0.2
    assert collect(config.dataset).manifest["files"][0]["path"] == str(tmp_path / "talk.jsonl")


def test_what_a_record_says_itself_of_its_dataset_is_kept(tmp_path: Path) -> None:
    write(tmp_path)
    rows = [{"prompt": f"{i} + 1?", "completion": "1", "dataset": "theirs"} for i in range(60)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    collected = collect(check(compose(words(tmp_path))).dataset)
    metas = [trace.meta for trace in collected.splits["train"]]
    assert {(meta["dataset"], meta.get("own_dataset")) for meta in metas} == {("talk", None), ("sums", "theirs")}
    assert collected.manifest["counts"]["noted"]["meta.dataset of records called meta.own_dataset"] == 60


def test_a_mistake_in_a_source_is_named_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.source\.sources\.sums\.weight: got 0"):
        check(compose(words(tmp_path, weight=0)))
    with pytest.raises(ConfigError, match=r"dataset\.source\.sources"):
        check(compose(["dataset=mixture", "dataset.name=mixed"]))
