"""The rules of a trace: each broken one is refused by name, and what is written is read back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt.errors import DataError
from tunix_rt.traces.trace import MAX_STEP, MAX_TEXT, Step, Trace, normalise, parse_trace, prompt_id

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
        ({"trace_version": "2.0"}, "f:3: trace_version: '2.0', expected '1.0'"),
        ({"prompt": 5}, "f:3: prompt: expected text, got a number (5)"),
        ({"prompt": ""}, "f:3: prompt: 0 characters, expected 1 to 50000"),
        ({"final_answer": "x" * (MAX_TEXT + 1)}, "f:3: final_answer: 50001 characters"),
        ({"final_answer": None}, "f:3: final_answer: expected text, got null"),
        ({"prompt": "\ud83d"}, "f:3: prompt: half a surrogate pair at character 0"),
        ({"steps": None}, "f:3: steps: expected a list, got null"),
        ({"steps": [step(i=i) for i in range(1001)]}, "f:3: steps: 1001 of them, expected at most 1000"),
        ({"steps": ["text"]}, "f:3: steps[0]: expected an object, got text"),
        ({"steps": [step(i=-1)]}, "f:3: steps[0].i: expected an integer >= 0, got -1"),
        ({"steps": [step(i=True)]}, "f:3: steps[0].i: expected an integer >= 0, got True"),
        ({"steps": [step(), step()]}, "f:3: steps: index 0 occurs twice"),
        ({"steps": [step(type=3)]}, "f:3: steps[0].type: expected text, got 3"),
        ({"steps": [step(content="")]}, "f:3: steps[0]: content: 0 characters, expected 1 to 20000"),
        ({"steps": [step(content="x" * (MAX_STEP + 1))]}, "f:3: steps[0]: content: 20001 characters"),
        ({"meta": []}, "f:3: meta: expected an object, got a list"),
        ({"meta": {"x": float("nan")}}, "f:3: meta: not plain JSON"),
        ({"meta": {"x": "\udc00"}}, "f:3: meta: half a surrogate pair"),
        ({"id": False}, "f:3: id: expected text or an integer, got true/false"),
        ({"id": ""}, "f:3: id: expected text or an integer"),
    ],
)
def test_a_broken_rule_is_named_with_place_and_field(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_trace(record(**changed), "f:3")
    assert str(caught.value).startswith(message)


def test_a_missing_field_is_named_with_those_that_are_there() -> None:
    with pytest.raises(DataError, match=r"f:1: prompt: missing \(the record has question\)"):
        parse_trace({"question": "?"}, "f:1")
