"""What `init` sees in people's files: every shape in them, every column, and which files are for testing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunix_rt.config.dataset import DataFile, FilesSource
from tunix_rt.traces.data_files import files_of_splits, read_records
from tunix_rt.traces.look import Found, look
from tunix_rt.traces.messages import Rules
from tunix_rt.traces.sources import Record, parts_of, read_source
from tunix_rt.traces.trace import Message


def seen(rows: list[Any], **columns: str) -> Found:
    return look({"train": ((f"f:{place}", row) for place, row in enumerate(rows, 1))}, columns)


THOUGHTS = "<think>\nso\n</think>\n\n7"
RENAMED: list[tuple[dict[str, Any], dict[str, str], tuple[str, str]]] = [
    (
        {"question": "Q", "think": "so", "response": "7"},
        {"prompt": "question", "completion": "response", "reasoning": "think"},
        ("Q", THOUGHTS),
    ),
    (
        {"Question": "Q", "Complex_CoT": "so", "Response": "7"},
        {"prompt": "Question", "completion": "Response", "reasoning": "Complex_CoT"},
        ("Q", THOUGHTS),
    ),
    (
        {"question": "Q", "solution": "7", "thinking_trajectories": ["so"]},
        {"reasoning": "thinking_trajectories"},
        ("Q", THOUGHTS),
    ),
    ({"question": "Q", "answer": "7", "reasoning_trace": "so"}, {"reasoning": "reasoning_trace"}, ("Q", THOUGHTS)),
    (
        {"instruction": "Q", "context": "C", "response": "7"},
        {"input": "context", "output": "response"},
        ("Q\n\nC", "7"),
    ),
    (
        {"question": "Q", "context": "C", "answer": "7"},
        {"instruction": "question", "input": "context", "output": "answer"},
        ("Q\n\nC", "7"),
    ),
    ({"question": "Q", "thinking": "so", "answer": THOUGHTS}, {}, ("Q", THOUGHTS)),
]  # fmt: skip


@pytest.mark.parametrize(("row", "columns", "text"), RENAMED)
def test_thoughts_and_context_are_found_under_their_other_names(
    row: dict[str, Any], columns: dict[str, str], text: tuple[str, str]
) -> None:
    found = seen([row | {"source": "x"}])
    ((_, trace),) = found.sample
    assert found.columns == columns and trace.completion is not None
    assert (trace.prompt, trace.completion.content) == text
    assert "source" in found.rules.unused


def test_a_system_prompt_under_another_name_is_shown() -> None:
    asked = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "7"}]
    for row in ({"system_prompt": "S", "question": "Q", "response": "7"}, {"system_prompt": "S", "messages": asked}):
        ((_, trace),) = seen([row]).sample
        assert trace.conversation == (Message("system", "S"), Message("user", "Q"))


def test_one_odd_record_decides_nothing_and_every_shape_is_learned() -> None:
    pairs: list[Any] = [{"instruction": f"{i}", "output": "7"} for i in range(3)]
    odd = seen([{"text": "intro"}, *pairs])
    assert (odd.adapter, odd.num_invalid) == ("alpaca", 1) and "f:1: no known shape" in odd.invalid[0]
    mixed = seen([*pairs, {"prompt": "Q", "completion": "7"}, {"question": "Q", "answer": 7}])
    assert mixed.adapter == "auto" and mixed.num_invalid == 0
    assert mixed.shapes == {"alpaca": 3, "prompt_completion": 1, "problem_solution": 1}


def test_a_declared_group_leaves_the_other_columns_to_be_found() -> None:
    found = seen([{"query": "Q", "response": "7", "document": "d"}], group="document")
    assert found.columns == {"prompt": "query", "completion": "response", "group": "document"}
    assert found.sample[0][1].meta == {"group": "d"}


def names(files: dict[Any, tuple[Path, ...]]) -> dict[str, list[str]]:
    return {split: [file.name for file in found] for split, found in files.items()}


def test_files_that_are_named_for_a_split_belong_to_it(tmp_path: Path) -> None:
    for name in ("train-0.jsonl", "train-1.jsonl", "sub/my_test.jsonl", "dev/a.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"prompt": name, "completion": "7"}))
    (tmp_path / "dataset_infos.json").write_text('{"description": "x"}')
    expected = {"train": ["train-0.jsonl", "train-1.jsonl"], "validation": ["a.jsonl"], "test": ["my_test.jsonl"]}
    assert names(files_of_splits(str(tmp_path))) == names(files_of_splits(f"{tmp_path}/**/*.jsonl")) == expected
    assert names(files_of_splits(f"{tmp_path}/sub")) == {"train": ["my_test.jsonl"]}
    file = DataFile(path=str(tmp_path))
    (part,) = parts_of(FilesSource(kind="files", train=file, test=file))
    for split, prompts in (("train", ["train-0.jsonl", "train-1.jsonl"]), ("test", ["sub/my_test.jsonl"])):
        rules = Rules()
        read = read_source(part, split, 0, rules)  # type: ignore[arg-type]
        assert [item.trace.prompt for item in read if isinstance(item, Record)] == prompts
        assert rules.noted["files named for a split that has no source"] == (split == "train"), "dev/a.jsonl"
    found = look({s: read_records(files[0]) for s, files in files_of_splits(str(tmp_path)).items()}, {})
    assert found.rows == 3 and len(found.shares) == 1
