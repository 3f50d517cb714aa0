"""Pairs of a better and a worse completion, in the shapes that people's files have."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tunix_rt.errors import DataError
from tunix_rt.traces.adapters import adapt, detect
from tunix_rt.traces.messages import Rules
from tunix_rt.traces.recorded import parse_trace
from tunix_rt.traces.trace import Alternative, Message, Step, Trace

ASKED = {"role": "user", "content": "Q"}
LONG = "\n\nHuman: A\n\nAssistant: B\n\nHuman: Q\n\nAssistant:"


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text} | more


def both(chosen: Any, rejected: Any, **more: Any) -> dict[str, Any]:
    return {"chosen": chosen, "rejected": rejected} | more


def read(record: dict[str, Any], **rules: Any) -> Trace:
    assert detect(record, "f:1") == "preference"
    return adapt(record, "auto", "f:1", Rules(**rules))


@pytest.mark.parametrize(
    ("record", "before"),
    [
        (both(" 7", "8\n", prompt="Q"), "Q"),
        (both(" 7", "8\n", prompt=[ASKED]), "Q"),
        (both([said(" 7")], [said("8\n")], prompt="Q"), "Q"),
        (both([said(" 7")], [said("8\n")], prompt=[ASKED]), "Q"),
        (both([ASKED, said(" 7")], [ASKED, said("8\n")]), "Q"),  # the prompt is what both begin with
        (both([ASKED, said(" 7")], [ASKED, said("8\n")], prompt="Q"), "Q"),  # UltraFeedback has it twice
        (both(LONG + "  7", LONG + " 8\n"), "A B Q"),  # Anthropic/hh-rlhf: dialogues as text
        (both(" 7", "8\n", system="S", question="Q"), "S Q"),  # orca_dpo_pairs
        (both(" 7", "8\n", instruction="Q", input="I"), "Q\n\nI"),
        (
            both(
                {"from": "gpt", "value": " 7"},
                {"from": "gpt", "value": "8\n"},
                conversations=[{"from": "human", "value": "Q"}],
            ),
            "Q",
        ),  # LLaMA-Factory
    ],
)
def test_both_completions_of_a_pair_are_kept_as_they_stand(record: dict[str, Any], before: str) -> None:
    trace = read(record)
    assert trace.completion == Message("assistant", " 7")
    assert trace.rejected == Alternative(Message("assistant", "8\n"))
    assert " ".join(message.content for message in trace.conversation) == before
    assert trace.loser.completion == trace.rejected.completion and trace.loser.conversation == trace.conversation
    again = parse_trace(json.loads(json.dumps(trace.to_json())), "here")
    assert again == trace


def test_thoughts_and_switches_hold_for_both() -> None:
    record = both([ASKED, said("7", reasoning="so")], [ASKED, said(" 8 ", reasoning="or")])
    trace = read(record, strip=True)
    assert trace.completion is not None and trace.rejected is not None and trace.rejected.completion is not None
    assert trace.completion.content == "<think>\nso\n</think>\n\n7"
    assert trace.rejected.completion.content == "<think>\nor\n</think>\n\n 8", "white space at the ends is removed"
    with pytest.raises(DataError, match=r"f:1: a text of 9 characters, expected at most 8"):
        read(both("7", "8" * 9, prompt="Q"), max_characters=8)


def test_a_rejected_completion_of_parts_is_rendered_as_the_trace_is() -> None:
    parts = {"prompt": "Q", "steps": [{"i": 0, "content": "so"}], "final_answer": "7"}
    trace = adapt(parts | {"rejected": {"steps": ["or"], "final_answer": "8"}}, "auto", "f:1", Rules())
    assert trace.rejected == Alternative(None, (Step(0, "step", "or"),), "8")
    assert [step.content for step in trace.loser.steps] == ["or"] and trace.loser.final_answer == "8"
    assert parse_trace(json.loads(json.dumps(trace.to_json())), "here") == trace


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (both([ASKED | {"content": "other"}, said("7")], [ASKED, said("8")]), "answer different conversations"),
        (both("7", "8"), "prompt: missing, and chosen is text, of which nothing says where the prompt ends"),
        (both("7", "", prompt="Q"), "rejected: 0 characters, expected at least 1"),
        (both("7", 3.5, prompt="Q"), "rejected: expected text, got a number"),
    ],
)
def test_what_is_no_pair_is_named(record: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"^f:1: .*{message}"):
        read(record)
