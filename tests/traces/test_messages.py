"""Messages as people's files hold them: nothing is learned twice, nothing that is to be learned is left out."""

from __future__ import annotations

import pytest

from tests.traces.test_adapters import ASKED, SEVEN, completion, read
from tunix_rt.errors import DataError


def test_thoughts_in_both_places_are_an_error_and_not_learned_twice() -> None:
    said = {"role": "assistant", "content": "<think>\nx\n</think>\n\n7", "reasoning_content": "y"}
    with pytest.raises(DataError, match=r"f:1: messages\[1\]: reasoning_content: content has thoughts too"):
        read({"messages": [ASKED, said]})
    with pytest.raises(DataError, match=r"f:1: reasoning: the text has thoughts too"):
        read({"prompt": "Q", "completion": "x</think>7", "reasoning": "y"})
    assert completion(read({"prompt": "Q", "completion": "7", "reasoning": ["y"]})) == "<think>\ny\n</think>\n\n7"


def test_all_that_the_assistant_says_in_a_completion_is_learned() -> None:
    turns = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}, SEVEN]
    trace = read({"prompt": [ASKED], "completion": turns})
    assert [message.weight for message in trace.messages] == [None, 1.0, None] and completion(trace) == "7"
    assert [m.weight for m in read({"prompt": [ASKED, *turns[:2]], "completion": [SEVEN]}).messages] == [None] * 3
    own = read({"prompt": [ASKED], "completion": [turns[0] | {"weight": 0}, *turns[1:]]})
    assert [message.weight for message in own.messages] == [None, 0.0, None]


def test_the_older_way_to_call_a_function_is_a_tool_call() -> None:
    call = {"name": "weather", "arguments": '{"city":  "Bern"}'}
    turns = [ASKED, {"role": "assistant", "content": None, "function_call": call}]
    trace = read({"messages": [*turns, {"role": "function", "name": "weather", "content": "12 C"}, SEVEN]})
    assert trace.messages[1].fields == {"tool_calls": [{"type": "function", "function": call}]}
    schema = {"name": "weather", "parameters": {}}
    assert read({"messages": [ASKED, SEVEN], "functions": [schema]}).tools == (
        {"type": "function", "function": schema},
    )
    both = turns[1] | {"tool_calls": [{"type": "function", "function": call}]}
    with pytest.raises(DataError, match=r"messages\[1\]: function_call and tool_calls: expected one of them"):
        read({"messages": [ASKED, both]})
