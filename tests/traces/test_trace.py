"""The rules of a trace: each broken one is refused by name, and what is written is read back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt.errors import DataError
from tunix_rt.traces.recorded import parse_trace
from tunix_rt.traces.trace import Alternative, Message, Step, Trace, normalise, prompt_id

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def record(**changed: Any) -> dict[str, Any]:
    steps = [{"i": 0, "type": "setup", "content": "first"}]
    return {
        "trace_version": "1.0",
        "prompt": "1+1=",
        "steps": steps,
        "final_answer": "2",
        "meta": {},
    } | changed


def step(**changed: Any) -> dict[str, Any]:
    return {"i": 0, "type": "step", "content": "x"} | changed


@given(TEXT, TEXT, st.lists(TEXT, max_size=4), TEXT, st.dictionaries(TEXT, st.integers() | TEXT, max_size=3))
def test_a_written_trace_is_read_back(
    identity: str, prompt: str, steps: list[str], answer: str, meta: dict[str, Any]
) -> None:
    trace = Trace(identity, prompt, tuple(Step(i, "step", text) for i, text in enumerate(steps)), answer, meta)
    assert parse_trace(json.loads(json.dumps(trace.to_json())), "here") == trace


def test_a_trace_with_text_and_tools_is_read_back() -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    before = (
        Message("system", "Add."),
        Message("user", "1+1?"),
        Message("assistant", "", {"tool_calls": [call]}, 0.5),
        Message("tool", "2", {"name": "add"}),
    )
    trace = Trace(
        id="t",
        prompt="1+1?",
        steps=(Step(0, "step", "so", (0, 2)),),
        final_answer="2",
        messages=before,
        completion=Message("assistant", "so\n2", {}, 2.0),
        tools=({"type": "function", "function": {"name": "add"}},),
        answer_span=(3, 4),
        rejected=Alternative(Message("assistant", "3", {"reasoning_content": "so"})),
    )
    again = parse_trace(json.loads(json.dumps(trace.to_json())), "here")
    assert again == trace
    assert trace.asked != replace(trace, tools=()).asked and trace.questions == replace(trace, tools=()).questions


def test_a_trace_of_the_first_version_has_its_history_as_messages() -> None:
    said = [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "1"}]
    trace = parse_trace(record(history=said), "here")
    assert trace.messages == (Message("user", "1?"), Message("assistant", "1"), Message("user", "1+1="))


def test_steps_are_put_in_order_of_their_index() -> None:
    trace = parse_trace(record(steps=[step(i=7, content="b"), step(i=2, content="a")]), "here")
    assert [s.content for s in trace.steps] == ["a", "b"]


def test_an_id_is_taken_from_the_record_then_from_meta_then_from_the_prompt() -> None:
    assert parse_trace(record(id=17, meta={"id": "m"}), "here").id == "17"
    assert parse_trace(record(id=None, meta={"id": "m"}), "here").id == "m"
    assert parse_trace(record(prompt="A  b"), "here").id == prompt_id("a b") != prompt_id("a c")


def test_normalisation_keeps_operators() -> None:
    assert normalise(" Ｗhat\tIS  1 + 1 ?\n") == "what is 1 + 1 ?"
    assert normalise("1 + 1") != normalise("1 - 1")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"trace_version": "2.0"}, "f:3: trace_version: '2.0', expected 1.0 or 1.1"),
        ({"prompt": 5}, "f:3: prompt: expected text, got a number (5)"),
        ({"prompt": ""}, "f:3: prompt: 0 characters, expected at least 1"),
        ({"final_answer": ""}, "f:3: final_answer: 0 characters"),
        ({"final_answer": None}, "f:3: final_answer: expected text, got null"),
        ({"prompt": "\ud83d"}, "f:3: prompt: half a surrogate pair at character 0"),
        ({"steps": None}, "f:3: steps: expected a list, got null"),
        ({"steps": [step(i=i) for i in range(1001)]}, "f:3: steps: 1001 of them, expected at most 1000"),
        ({"steps": ["text"]}, "f:3: steps[0]: expected an object, got text"),
        ({"steps": [step(i=-1)]}, "f:3: steps[0].i: expected an integer >= 0, got -1"),
        ({"steps": [step(i=True)]}, "f:3: steps[0].i: expected an integer >= 0, got True"),
        ({"steps": [step(), step()]}, "f:3: steps: index 0 occurs twice"),
        ({"steps": [step(type=3)]}, "f:3: steps[0].type: expected text, got 3"),
        ({"steps": [step(content="")]}, "f:3: steps[0]: content: 0 characters, expected at least 1"),
        ({"steps": [step(span=[0, 1])]}, "f:3: steps[0].span: expected [start, end) in the 0 characters of completion"),
        ({"completion": "ab", "answer_span": [1, 3]}, "f:3: answer_span: expected [start, end) in the 2 characters"),
        ({"completion": 4}, "f:3: completion: expected text, got a number (4)"),
        ({"messages": [{"role": "user"}]}, "f:3: messages[0]: content: missing"),
        (
            {"messages": [{"role": "user", "content": "a", "weight": -1}]},
            "f:3: messages[0]: weight: expected a number from 0",
        ),
        ({"tools": "search"}, "f:3: tools: expected a list of objects, got text"),
        ({"meta": {"x": "\udc00"}}, "f:3: meta: half a surrogate pair"),
    ],
)
def test_a_broken_rule_is_named_with_place_and_field(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_trace(record(**changed), "f:3")
    assert str(caught.value).startswith(message)


def test_a_missing_field_is_named_with_those_that_are_there() -> None:
    with pytest.raises(DataError, match=r"f:1: prompt: missing \(the record has question\)"):
        parse_trace({"question": "?"}, "f:1")
