"""A trace with a conversation before its prompt: its record, and what counts as the same question."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunix_rt.config.dataset import DatasetConfig, FilesSource, SplitConfig
from tunix_rt.errors import DataError
from tunix_rt.traces.dataset import collect, share_of, split_at
from tunix_rt.traces.recorded import parse_trace
from tunix_rt.traces.trace import Message, Step, Trace

TALK = (Message("user", "2+2?"), Message("assistant", "4"))


def record(**changed: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
    return {"prompt": "Why?", "steps": [], "final_answer": "A", "history": said} | changed


def test_a_record_without_history_stays_as_it_was() -> None:
    trace = Trace("t", "Q", (Step(0, "step", "s"),), "A")
    assert list(trace.to_json()) == ["trace_version", "id", "prompt", "steps", "final_answer", "meta"]
    assert trace.questions == ("Q",)


def test_history_goes_through_the_record() -> None:
    trace = parse_trace(record(), "f:1")
    assert (trace.messages, trace.prompt) == ((*TALK, Message("user", "Why?")), "Why?")
    assert trace.questions == ("2+2?", "2+2?\n4\nWhy?")
    again = json.loads(json.dumps(trace.to_json()))
    assert again["trace_version"] == "1.1"
    assert parse_trace(again, "f:1") == trace


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ("hello", "f:1: history: expected a list of objects, got text"),
        ([{"role": "user", "content": "a"}], "by turns, the user first, got user"),
        ([{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}], "got assistant, user"),
        ([{"role": "user", "content": ""}, {"role": "assistant", "content": "b"}], "f:1: history[0]: content: 0 char"),
    ],
)
def test_a_bad_history_is_named(history: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_trace(record(history=history), "f:1")
    assert message in str(caught.value)


def test_the_same_last_words_after_another_conversation_are_no_duplicate(
    tmp_path: Path, jsonl: Callable[..., FilesSource], dataset: Callable[..., DatasetConfig]
) -> None:
    other = [{"role": "user", "content": "3+3?"}, {"role": "assistant", "content": "6"}]
    rows = [record(), record(history=other), record(history=[])]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    source = jsonl(tmp_path / "train.jsonl")
    assert len(collect(dataset(source)).splits["train"]) == 3
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, [record(), record()])), "utf-8")
    with pytest.raises(DataError, match="prompts occur again"):
        collect(dataset(source))


def test_a_test_question_asked_on_the_way_is_an_overlap(
    tmp_path: Path, jsonl: Callable[..., FilesSource], dataset: Callable[..., DatasetConfig]
) -> None:
    """Its answer stands in the training conversation, though the conversation ends with another question."""
    (tmp_path / "train.jsonl").write_text(json.dumps(record()), "utf-8")
    (tmp_path / "test.jsonl").write_text(json.dumps(record(prompt="2+2?", history=[])), "utf-8")
    source = jsonl(tmp_path / "train.jsonl", test=tmp_path / "test.jsonl")
    with pytest.raises(DataError, match="share"):
        collect(dataset(source))
    (tmp_path / "test.jsonl").write_text(json.dumps(record(prompt="Why?", history=[])), "utf-8")
    assert len(collect(dataset(source)).splits["train"]) == 1


def test_conversations_that_begin_alike_stay_in_one_split() -> None:
    halves = SplitConfig(validation=0.3, test=0.3)
    splits = set()
    for i in range(40):
        first = Trace("a", f"{i}?", (), "A")
        later = Trace(
            "b",
            "Why?",
            (),
            "B",
            messages=(Message("user", f"{i}?"), Message("assistant", "x"), Message("user", "Why?")),
        )
        assert split_at(share_of(first, 0), halves) == split_at(share_of(later, 0), halves)
        splits.add(split_at(share_of(first, 0), halves))
    assert len(splits) == 3
