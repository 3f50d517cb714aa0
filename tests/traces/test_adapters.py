"""Each foreign shape becomes the trace it stands for, or an error that names file, line and field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunix_rt.config.choices import Adapter
from tunix_rt.errors import DataError
from tunix_rt.files import read_jsonl
from tunix_rt.traces.adapters import adapt
from tunix_rt.traces.trace import Message, Trace, prompt_id


def steps(trace: Trace) -> list[str]:
    return [step.content for step in trace.steps]


def conversation(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def test_gsm8k_lines_become_steps_without_their_calculator_annotations() -> None:
    answer = "He drinks 2*3=<<2*3=6>>6 cups.\n\nThat is $<<6*1.5=9>>9.\n#### 9"
    trace = adapt({"question": "How much?", "answer": answer}, "gsm8k", "f:1")
    assert (trace.prompt, steps(trace), trace.final_answer) == (
        "How much?",
        ["He drinks 2*3=6 cups.", "That is $9."],
        "9",
    )
    assert trace.id == prompt_id("How much?")


@pytest.mark.parametrize("answer", ["It is 9.", "#### ", "step\n#### 9\nmore", "####"])
def test_a_gsm8k_answer_without_its_mark_is_refused(answer: str) -> None:
    with pytest.raises(DataError, match=r"f:7: answer: expected to end in a line '#### x'"):
        adapt({"question": "?", "answer": answer}, "gsm8k", "f:7")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 + 4 = 7\n7 * 2 = 14\n14", (["3 + 4 = 7", "7 * 2 = 14"], "14")),
        ("3 + 4 = 7\n#### 7", (["3 + 4 = 7"], "7")),
        ("one\nFinal Answer:  $7 \n", (["one"], "$7")),
        ("one\nAnswer: 7\nHope this helps!", (["one", "Hope this helps!"], "7")),
        ("one\nThus \\boxed{\\frac{1}{2}}.", (["one", "Thus \\boxed{\\frac{1}{2}}."], "\\frac{1}{2}")),
        ("one\n$\\boxed{7}$", (["one"], "7")),
        ("one\nAnswer: \\boxed{7}", (["one"], "7")),
        ("one \\boxed{7\nlast", (["one \\boxed{7"], "last")),
        ("<think>one\ntwo</think>7", (["one", "two"], "7")),
        ("7", ([], "7")),
        ("Answer:\n7", (["Answer:"], "7")),
    ],
)
def test_a_free_solution_is_split_into_steps_and_answer(text: str, expected: tuple[list[str], str]) -> None:
    by_chat = adapt(conversation(("user", "Q"), ("assistant", text)), "chat", "f:1")
    by_pair = adapt({"prompt": "Q", "completion": text}, "prompt_completion", "f:1")
    for trace in (by_chat, by_pair):
        assert (trace.prompt, steps(trace), trace.final_answer) == ("Q", *expected)


def test_a_system_message_and_unknown_fields_go_to_meta() -> None:
    record = conversation(("system", "Be brief."), ("user", "Q"), ("assistant", "A"))
    trace = adapt(record | {"source": "x", "meta": {"group": "g"}, "id": "i"}, "chat", "f:1")
    assert trace.meta == {"system": "Be brief.", "source": "x", "group": "g"}
    assert (trace.id, trace.prompt) == ("i", "Q")


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_what_a_message_says_it_thought_are_the_steps_before_its_content(name: str) -> None:
    """As the APIs and templates of reasoning models keep it apart; a result in it is not the answer."""
    said = {"role": "assistant", "content": "So:\nit is 7", name: "3 + 4\nmaybe \\boxed{8}\n"}
    trace = adapt({"messages": [{"role": "user", "content": "3+4?"}, said]}, "chat", "f:1")
    assert (steps(trace), trace.final_answer) == (["3 + 4", "maybe \\boxed{8}", "So:"], "it is 7")
    assert adapt({"messages": [{"role": "user", "content": "3+4?"}, said | {name: None}]}, "chat", "f:1").steps
    both = said | {"reasoning_content": "a", "thinking": "b"}
    with pytest.raises(DataError, match=r"f:1: messages\[1\]: reasoning_content and .*thinking: expected one of them"):
        adapt({"messages": [{"role": "user", "content": "3+4?"}, both | {"reasoning": None}]}, "chat", "f:1")


def test_earlier_turns_become_the_history_of_the_last_question() -> None:
    turns = [("system", "Be brief."), ("user", "2+2?"), ("assistant", "<think>easy</think>4"), ("user", "Why?")]
    trace = adapt(conversation(*turns, ("assistant", "2 and 2\nit is 4")), "chat", "f:1")
    assert trace.history == (Message("user", "2+2?"), Message("assistant", "<think>easy</think>4"))
    assert (trace.prompt, steps(trace), trace.final_answer) == ("Why?", ["2 and 2"], "it is 4")
    assert trace.meta == {"system": "Be brief."}
    assert trace.id == prompt_id("2+2?\n<think>easy</think>4\nWhy?"), "the same last question elsewhere is another"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "f:2: messages: expected a list of objects with role and content"),
        ({"messages": ["hello"]}, "f:2: messages: expected a list of objects"),
        (
            {"messages": []},
            "f:2: messages: expected user and assistant by turns (a system message may come first), ending",
        ),
        (conversation(("user", "Q")), "got user"),
        (conversation(("user", "Q"), ("assistant", "A"), ("user", "Q")), "got user, assistant, user"),
        (conversation(("user", "Q"), ("system", "S"), ("assistant", "A")), "got user, system, assistant"),
        (conversation(("system", "S")), "ending with the assistant, got system"),
        (conversation(("user", ""), ("assistant", "A")), "f:2: messages[0]: content: 0 characters"),
        (conversation(("user", "Q"), ("assistant", " \n ")), "f:2: messages[1].content: nothing but white space"),
        ({"messages": [{"role": "user"}, {"role": "assistant"}]}, "f:2: messages[0]: content: missing"),
        (
            conversation(("user", "Q"), ("assistant", "x" * 20_001 + "\n7")),
            "f:2: a step (line) of 20001 characters",
        ),
        (conversation(("user", "Q"), ("assistant", "x\n" * 1_001 + "7")), "f:2: 1001 steps"),
    ],
)
def test_a_bad_conversation_is_named_with_its_field(record: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        adapt(record, "chat", "f:2")
    assert message in str(caught.value)
    assert str(caught.value).startswith("f:2: ")


def test_an_evaluation_item_has_no_steps_and_keeps_its_sections() -> None:
    record = {"id": "e1", "prompt": "Q", "expected_answer": "A", "section": "core", "difficulty": "easy"}
    trace = adapt(record, "evaluation_set", "f:1")
    assert trace == Trace("e1", "Q", (), "A", {"section": "core", "difficulty": "easy"})


@pytest.mark.parametrize(
    ("adapter", "field"),
    [("trace", "prompt"), ("gsm8k", "question"), ("prompt_completion", "prompt"), ("evaluation_set", "prompt")],
)
def test_the_field_is_named_as_the_file_names_it(adapter: Adapter, field: str) -> None:
    with pytest.raises(DataError, match=f"f:4: {field}: missing"):
        adapt({"other": 1}, adapter, "f:4")


@pytest.mark.parametrize("name", ["train", "test"])
def test_every_row_of_gsm8k_parses(real_data: Path, name: str) -> None:
    file = real_data / "gsm8k" / f"{name}.jsonl"
    answers = [record["answer"].split("\n") for _, record in read_jsonl(file)]
    traces = [adapt(record, "gsm8k", f"{file}:{number}") for number, record in read_jsonl(file)]
    assert len(traces) == len(answers) >= 50
    assert all(trace.steps for trace in traces)
    assert not any("<<" in step or "####" in step for trace in traces for step in steps(trace))
    assert all(trace.final_answer.replace(",", "").lstrip("-").replace(".", "").isdigit() for trace in traces)
    lines = [sum(line.strip() != "" for line in answer) for answer in answers]
    assert [len(trace.steps) + 1 for trace in traces] == lines, "no line is lost"


def test_every_trace_and_evaluation_item_of_the_earlier_project_parses(real_data: Path) -> None:
    folder = real_data / "tunix_rt_v2"
    records = [record for _, record in read_jsonl(folder / "traces.jsonl")]
    traces = [adapt(record, "trace", "f") for record in records]
    items = [adapt(record, "evaluation_set", "f") for _, record in read_jsonl(folder / "eval.jsonl")]
    assert len(items) == 100
    assert all(trace.steps for trace in traces)
    assert {key for item in items for key in item.meta} == {"section", "category", "difficulty"}
    assert [steps(trace) for trace in traces] == [[step["content"] for step in record["steps"]] for record in records]
