"""Prompts with answers alone, which is all that reinforcement learning needs, in the shapes that files have."""

from __future__ import annotations

from typing import Any

import pytest

from tunix_rt.errors import DataError
from tunix_rt.traces.adapters import adapt
from tunix_rt.traces.messages import Rules
from tunix_rt.traces.trace import Trace


def read(record: dict[str, Any], **rules: Any) -> Trace:
    return adapt(record, "auto", "f:1", Rules(**rules))


def said(trace: Trace) -> str:
    assert trace.completion is not None
    return trace.completion.content


@pytest.mark.parametrize("name", ["expected_answer", "ground_truth", "reference_answer"])
@pytest.mark.parametrize("prompt", ["prompt", "problem", "question"])
def test_a_prompt_with_its_answer_is_one_to_be_asked(prompt: str, name: str) -> None:
    assert read({"id": "a", prompt: "Q", name: 7}) == Trace("a", "Q", (), "7")
    asked = read({prompt: [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}], name: "7"})
    assert (asked.prompt, asked.final_answer, asked.completion) == ("Q", "7", None)
    assert [message.role for message in asked.messages] == ["system", "user"]


@pytest.mark.parametrize("prompt", ["prompt", "problem", "question"])
def test_an_answer_may_be_all_of_the_completion(prompt: str) -> None:
    """For reinforcement learning it is what is expected, for the rest what is learned."""
    short, long = read({prompt: "Q", "answer": "7"}), read({prompt: "Q", "answer": "3+4\n7"})
    assert (short.prompt, short.final_answer, said(short)) == ("Q", "7", "7")
    assert (long.prompt, long.final_answer, said(long)) == ("Q", "7", "3+4\n7")
    with pytest.raises(DataError, match=r"finds no answer: .*only what is expected: columns={expected_answer: answer}"):
        read({prompt: "Q", "answer": "7"}, reader="boxed")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"prompt": "Q", "answer": "7", "chosen": "so 7"},
            "f:1: rejected: missing, and there is chosen: a pair has both",
        ),
        (
            {"prompt": "Q", "ground_truth": "7", "chosen": "so 7", "rejected": None},
            "f:1: rejected: null, and there is chosen",
        ),
        ({"question": "Q", "answer": "7", "rejected": "so 8"}, "f:1: chosen: missing, and there is rejected: a pair"),
        (
            {"prompt": "Q", "reward_model": {"ground_truth": "7"}},
            "what is inside 'reward_model' has to stand at the top",
        ),
    ],
)
def test_what_is_missing_is_said(record: dict[str, Any], message: str) -> None:
    """Prevents: the answer beside a pair without its loser being learned."""
    with pytest.raises(DataError) as caught:
        read(record)
    assert message in str(caught.value)
