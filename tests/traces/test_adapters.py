"""Each shape that people's files have becomes the trace it stands for, its text unchanged, or an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunix_rt.config.choices import Adapter
from tunix_rt.errors import DataError
from tunix_rt.files import read_jsonl
from tunix_rt.traces.adapters import adapt, detect
from tunix_rt.traces.messages import Rules
from tunix_rt.traces.trace import Message, Trace, prompt_id


def steps(trace: Trace) -> list[str]:
    return [step.content for step in trace.steps]


def talk(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def read(record: dict[str, Any], adapter: Adapter = "auto", **rules: Any) -> Trace:
    return adapt(record, adapter, "f:1", Rules(**rules))


def completion(trace: Trace) -> str:
    assert trace.completion is not None
    return trace.completion.content


ASKED, SEVEN = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "7"}
CALL = {"name": "weather", "arguments": {"city": "Bern"}}
SHAPES: list[tuple[dict[str, Any], Adapter, str, str]] = [
    (talk(("user", "Q"), ("assistant", "so\n7")), "chat", "so\n7", "7"),
    ({"messages": '[{"role": "user", "content": "Q"}, {"role": "assistant", "content": "7"}]'}, "chat", "7", "7"),
    ({"messages": [ASKED, {"role": "assistant", "content": [{"type": "text", "text": "7"}]}]}, "chat", "7", "7"),
    ({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "7"}]}, "sharegpt", "7", "7"),
    ({"conversations": [ASKED, SEVEN]}, "sharegpt", "7", "7"),
    ({"instruction": "Q", "input": "", "output": "7 "}, "alpaca", "7 ", "7"),
    ({"prompt": "Q", "completion": " so\n\n7\n"}, "prompt_completion", " so\n\n7\n", "7"),
    ({"prompt": [ASKED], "completion": [{"role": "assistant", "content": "7"}]}, "prompt_completion", "7", "7"),
    ({"problem": "Q", "solution": "so \\boxed{8}", "answer": "7"}, "problem_solution", "so \\boxed{8}", "7"),
    (
        {"question": "Q", "reasoning": "so", "answer": "7"},
        "problem_solution",
        "<think>\nso\n</think>\n\n7",
        "7",
    ),
    ({"prompt": "Q", "chosen": "7", "rejected": "8"}, "preference", "7", "7"),
    (
        {"chosen": [ASKED, SEVEN], "rejected": [ASKED, SEVEN | {"content": "8"}]},
        "preference",
        "7",
        "7",
    ),
    ({"question": "Q", "answer": "1+6=<<1+6=7>>7\n#### 7"}, "gsm8k", "1+6=7\n#### 7", "7"),
]  # fmt: skip


@pytest.mark.parametrize(("record", "adapter", "text", "answer"), SHAPES)
def test_a_shape_is_recognised_and_its_text_is_kept(
    record: dict[str, Any], adapter: Adapter, text: str, answer: str
) -> None:
    assert detect(record, "f:1") == adapter
    for name in ("auto", adapter):
        trace = read(record, name)  # type: ignore[arg-type]
        assert (trace.prompt, completion(trace), trace.final_answer) == ("Q", text, answer)
        assert all(step.span is not None and text[slice(*step.span)] == step.content for step in trace.steps)
        assert trace.answer_span is None or text[slice(*trace.answer_span)] == answer


@pytest.mark.parametrize("answer", ["It is 9.", "#### ", "step\n#### 9\nmore", "####"])
def test_a_gsm8k_answer_without_its_mark_is_refused(answer: str) -> None:
    with pytest.raises(DataError, match=r"f:1: answer: expected to end in a line '#### x'"):
        read({"question": "?", "answer": answer}, "gsm8k")


def test_what_is_left_out_is_counted() -> None:
    rules = Rules(last_user="drop", consecutive="join", strip=True)
    record = talk(("user", " a"), ("user", "b"), ("assistant", "c"), ("user", "d"))
    record["messages"][0]["timestamp"] = 3
    trace = adapt(record, "chat", "f:1", rules)
    assert (trace.prompt, completion(trace)) == ("a\n\nb", "c")
    assert dict(rules.noted) == {
        "message field timestamp not used": 1,
        "white space at the ends removed": 1,
        "messages after the assistant's last one left out": 1,
        "messages in a row joined": 1,
    }
    gsm8k = Rules()
    adapt({"question": "Q", "answer": "1+6=<<1+6=7>>7\n#### 7"}, "auto", "f:1", gsm8k)
    assert dict(gsm8k.noted) == {"calculator annotations left out": 1}


def test_system_messages_and_tools_are_part_of_the_trace() -> None:
    tool = {"name": "weather", "parameters": {}}
    for record in (
        talk(("system", "Be brief."), ("user", "Q"), ("assistant", "A")) | {"tools": [tool]},
        {"system": "Be brief.", "tools": json.dumps([tool])} | talk(("user", "Q"), ("assistant", "A")),
    ):  # fmt: skip
        trace = read(record | {"source": "x", "meta": {"group": "g"}, "id": "i"})
        assert trace.messages == (Message("system", "Be brief."), Message("user", "Q"))
        assert trace.tools == ({"type": "function", "function": tool},)
        assert trace.meta == {"source": "x", "group": "g"} and trace.id == "i"
    other = read({"system": "Be long."} | talk(("user", "Q"), ("assistant", "A")))
    assert other.asked != trace.asked and other.questions == trace.questions == ("Q",)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_thoughts_in_a_field_of_their_own_are_written_as_thoughts_in_the_text(name: str) -> None:
    """Two spellings of one thing become one trace."""
    said = {"role": "assistant", "content": "So:\nit is 7", name: "3 + 4\nmaybe \\boxed{8}"}
    inline = "<think>\n3 + 4\nmaybe \\boxed{8}\n</think>\n\nSo:\nit is 7"
    trace = read({"messages": [ASKED, said]})
    assert trace == read(talk(("user", "Q"), ("assistant", inline)))
    assert (completion(trace), steps(trace), trace.final_answer) == (
        inline,
        ["3 + 4", "maybe \\boxed{8}"],
        "So:\nit is 7",
    )
    both = said | {"reasoning_content": "a", "thinking": "b", "reasoning": None}
    with pytest.raises(DataError, match=r"f:1: messages\[1\]: reasoning_content and .*thinking: expected one of them"):
        read({"messages": [ASKED, both]})


def test_thoughts_of_previous_turns_are_left_to_the_template_in_both_spellings() -> None:
    inline = talk(("user", "2+2?"), ("assistant", "<think>\neasy\n</think>\n\n4"), ("user", "Why?"), ("assistant", "A"))
    apart = talk(("user", "2+2?"), ("assistant", "4"), ("user", "Why?"), ("assistant", "A"))
    apart["messages"][1]["reasoning_content"] = "easy"
    expected = (
        Message("user", "2+2?"),
        Message("assistant", "4", {"reasoning_content": "easy"}),
        Message("user", "Why?"),
    )
    assert read(inline).messages == read(apart).messages == expected
    shown = (Message("user", "2+2?"), Message("assistant", "<think>\neasy\n</think>\n\n4"), Message("user", "Why?"))
    rules = {"previous_thoughts": "inline"}
    assert read(inline, **rules).messages == read(apart, **rules).messages == shown


def test_tool_calls_and_their_results_are_context() -> None:
    api = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
    record = {
        "messages": [
            ASKED,
            {"role": "assistant", "content": None, "tool_calls": [api]},
            {"role": "tool", "tool_call_id": "c1", "content": "12 C"},
            {"role": "assistant", "content": "12 C."},
        ]
    }
    trace = read(record)
    assert [message.role for message in trace.messages] == ["user", "assistant", "tool"]
    assert trace.messages[1].fields["tool_calls"] == [api]
    assert (trace.prompt, completion(trace), trace.questions) == ("Q", "12 C.", ("Q\n\n12 C",))
    sharegpt = {
        "conversations": [
            {"from": "human", "value": "Q"},
            {"from": "function_call", "value": '{"name": "weather", "arguments":  {"city":"Bern" }}'},
            {"from": "observation", "value": "12 C"},
            {"from": "gpt", "value": "12 C."},
        ]
    }
    verbatim = CALL | {"arguments": '{"city":"Bern" }'}
    assert read(sharegpt).messages[1].fields["tool_calls"] == [{"type": "function", "function": verbatim}]
    calling = read({"messages": record["messages"][:2]})
    assert calling.completion is not None and calling.completion.fields["tool_calls"] and not calling.final_answer


@pytest.mark.parametrize(
    ("given", "weight"),
    [({"weight": 0}, 0.0), ({"train": False}, 0.0), ({"training": True}, 1.0), ({"loss_mask": 1}, 1.0), ({}, None)],
)
def test_the_weight_of_a_message_is_read(given: dict[str, Any], weight: float | None) -> None:
    before = {"role": "assistant", "content": "a"} | given
    trace = read({"messages": [ASKED, before, {"role": "user", "content": "R"}, {"role": "assistant", "content": "b"}]})
    assert trace.messages[1].weight == weight
    with pytest.raises(DataError, match=r"messages\[1\]: weight: 0, train: True: expected one number"):
        read({"messages": [ASKED, {"role": "assistant", "content": "a", "weight": 0, "train": True}, ASKED, ASKED]})


def test_a_user_turn_that_is_to_be_learned_is_refused() -> None:
    with pytest.raises(DataError, match=r"messages\[0\]: train: only what the assistant says is learned"):
        read({"messages": [ASKED | {"train": True}, {"role": "assistant", "content": "b"}]})


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"messages": 3}, "f:1: messages: expected a list of objects, got a number (3)"),
        ({"messages": ["hello"]}, "f:1: messages: expected a list of objects"),
        ({"messages": []}, "f:1: messages: an empty list, expected a list of objects with role and content"),
        ({"messages": ["hello"]}, "f:1: messages: expected a list of objects, got text in it"),
        ({"prompt": "a", "completion": None}, "f:1: no known shape has the fields completion (null), prompt"),
        ({"talk": {"messages": []}}, "to be asked); what is inside 'talk' has to stand at"),
        ({"chosen": "Human: a Assistant: b", "rejected": "c"}, "f:1: prompt: missing, and chosen is text, of which"),
        ({"messages": "hello"}, "f:1: messages: expected a list of objects, got text that is not JSON"),
        (talk(("user", "Q")), "no message of the assistant, so nothing to learn (roles: user)"),
        (
            talk(("user", "Q"), ("assistant", "A"), ("user", "Q")),
            "it ends with user, so nothing is learned of that (roles: user, assistant, user); dataset.on_last_user",
        ),
        (
            talk(("user", "Q"), ("user", "R"), ("assistant", "A")),
            "two messages of user in a row (roles: user, user, assistant); dataset.on_consecutive=join",
        ),
        (talk(("system", "S"), ("assistant", "A")), "no message of the user before the assistant's last one"),
        (talk(("user", ""), ("assistant", "A")), "f:1: messages[0]: content: 0 characters"),
        (talk(("user", "Q"), ("assistant", " \n ")), "f:1: the completion is nothing but white space"),
        (talk(("alien", "Q"), ("assistant", "A")), "f:1: messages[0]: role: 'alien' is not a known role (the message"),
        ({"messages": [{"role": "user"}, {"role": "assistant"}]}, "f:1: messages[0]: content: missing"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "'image_url': only text can be learned"),
        (talk(("user", "Q"), ("assistant", "x" * 1_000_001)), "f:1: a text of 1,000,001 characters, expected at most"),
        ({"prompt": "Q", "completion": 4.5}, "f:1: completion: expected text, got a number (4.5)"),
        ({"other": 1, "more": 2}, "f:1: no known shape has the fields more, other; name them: columns={prompt: FIELD"),
    ],
)
def test_a_bad_record_is_named_with_its_field_and_a_way_on(record: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(record)
    assert message in str(caught.value)
    assert str(caught.value).startswith("f:1: ")


def test_messages_in_a_row_with_different_weights_are_not_joined() -> None:
    said = [{"role": "assistant", "content": "a", "weight": weight} for weight in (0, 1)]
    with pytest.raises(DataError, match=r"with the weights 0.0 and 1.0 cannot be joined"):
        read({"messages": [ASKED, *said]}, consecutive="join")


def test_numbers_that_json_does_not_have_are_null_in_other_fields() -> None:
    record = {"prompt": "Q", "completion": "7", "score": float("nan"), "more": {"x": [float("inf"), 1.5]}}
    assert read(record).meta == {"score": None, "more": {"x": [None, 1.5]}}


def test_an_evaluation_item_has_no_steps_and_keeps_its_sections() -> None:
    record = {"id": "e1", "prompt": "Q", "expected_answer": "A", "section": "core", "difficulty": "easy"}
    assert read(record) == Trace("e1", "Q", (), "A", {"section": "core", "difficulty": "easy"})


@pytest.mark.parametrize(
    ("adapter", "field"),
    [
        ("trace", "prompt"),
        ("gsm8k", "answer"),
        ("prompt_completion", "prompt"),
        ("evaluation_set", "expected_answer"),
        ("alpaca", "instruction"),
        ("preference", "prompt"),
        ("problem_solution", "problem"),
    ],
)
def test_the_field_is_named_as_the_file_names_it(adapter: Adapter, field: str) -> None:
    with pytest.raises(DataError, match=f"f:1: {field}: missing"):
        read({"other": 1}, adapter)


@pytest.mark.parametrize("name", ["train", "test"])
def test_every_row_of_gsm8k_parses(real_data: Path, name: str) -> None:
    file = real_data / "gsm8k" / f"{name}.jsonl"
    answers = [record["answer"] for _, record in read_jsonl(file)]
    traces = [read(record, "gsm8k") for _, record in read_jsonl(file)]
    assert len(traces) == len(answers) >= 50 and all(trace.steps for trace in traces)
    assert not any("<<" in step or "####" in step for trace in traces for step in steps(trace))
    assert all(trace.final_answer.replace(",", "").lstrip("-").replace(".", "").isdigit() for trace in traces)
    lines = [sum(line.strip() != "" for line in answer.split("\n")) for answer in answers]
    assert [len(trace.steps) + 1 for trace in traces] == lines, "no line is lost"
    plain = [answer for answer in answers if "<<" not in answer]
    assert [completion(t) for t, a in zip(traces, answers, strict=True) if "<<" not in a] == plain, "nothing is changed"
    assert traces[0].id == prompt_id(traces[0].prompt)


def test_every_trace_and_evaluation_item_of_the_earlier_project_parses(real_data: Path) -> None:
    folder = real_data / "tunix_rt_v2"
    records = [record for _, record in read_jsonl(folder / "traces.jsonl")]
    traces = [read(record, "trace") for record in records]
    items = [read(record, "evaluation_set") for _, record in read_jsonl(folder / "eval.jsonl")]
    assert len(items) == 100
    assert all(trace.steps for trace in traces)
    assert {key for item in items for key in item.meta} == {"section", "category", "difficulty"}
    assert [steps(trace) for trace in traces] == [[step["content"] for step in record["steps"]] for record in records]


@pytest.mark.parametrize(("adapter", "name"), [("chat", "messages"), ("sharegpt", "conversations")])
def test_a_conversation_that_is_missing_is_said_to_be(adapter: Adapter, name: str) -> None:
    """Prevents: an exception that stops the reading of all other rows."""
    for record in ({"other": 1}, {name: None}):
        with pytest.raises(DataError, match=f"f:1: {name}: missing, expected a list of objects"):
            adapt(record, adapter, "f:1", Rules())
