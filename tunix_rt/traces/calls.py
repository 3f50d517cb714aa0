"""Tool calls of messages: their arguments are text or objects, and chat templates want the one or the other."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from tunix_rt.errors import DataError, ModelError
from tunix_rt.files import JsonObject, to_json
from tunix_rt.traces.thoughts import FIELD
from tunix_rt.traces.trace import Message, objects
from tunix_rt.traces.turn import last

ARGUMENTS = re.compile(r'"arguments"\s*:\s*')
PROBE = '{"⟦name⟧":  1.10}'
"""Arguments that no program writes in this way."""


def probe() -> JsonObject:
    """A message with a call whose arguments are `PROBE`."""
    call = {"id": "000000000", "type": "function", "function": {"name": "probe", "arguments": PROBE}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def without_calls(message: Message) -> Message:
    """The message as if it called no tool."""
    return replace(message, fields={name: value for name, value in message.fields.items() if name != "tool_calls"})


def hidden_calls(
    render: Callable[[Sequence[Message]], str], whole: str, said: Sequence[Message], place: int
) -> list[JsonObject]:
    """The calls of a message without which `render` makes `whole` of the conversation all the same."""
    calls, hidden = said[place].fields.get("tool_calls", []), []
    for number, call in enumerate(calls):
        left = [*calls[:number], *calls[number + 1 :]]
        other = replace(said[place], fields=said[place].fields | {"tool_calls": left})
        without = other if left else without_calls(said[place])
        with suppress(ModelError):  # a template that counts calls, or turns without any, shows them
            hidden += [call["function"]] * (render([*said[:place], without, *said[place + 1 :]]) == whole)
    return hidden


def refuse_changed(said: Message, lead: str, text: str) -> None:
    """Raises DataError unless what the template wrote of a turn with calls holds its thoughts and its text unchanged.

    `lead`: what the template writes before any text of the assistant.
    """
    thoughts = said.fields.get(FIELD, "")
    if thoughts not in text:
        raise DataError("the chat template does not show the thoughts before tool calls; leave such rows out")
    if thoughts and said.content not in text.partition(thoughts)[2]:
        what = f"the text {last(said.content)} between thoughts and tool calls"
        raise DataError(f"the chat template does not show {what} as it is; leave such rows out")
    if not thoughts and not text.startswith((said.content, lead + said.content)):
        raise DataError(
            f"the chat template trims or moves the text beside the tool calls ({last(said.content)}): "
            "dataset.strip=true removes white space in the data"
        )


def with_arguments_as_text(message: JsonObject) -> JsonObject:
    """A message whose tool calls have their arguments as JSON text, as OpenAI's API gives them."""
    return _changed(message, lambda value: value if isinstance(value, str) else to_json(value))


def with_arguments_as_objects(message: JsonObject) -> JsonObject:
    """A message whose tool calls have their arguments as objects, as most chat templates expect them."""
    return _changed(message, lambda value: json.loads(value) if isinstance(value, str) else value)


def with_arguments_of(text: str, calls: Sequence[JsonObject]) -> list[JsonObject]:
    """Calls that were read from a text, with their arguments as the text has them; where that is not clear, as read."""
    decoder, found = json.JSONDecoder(), []
    for start in (match.end() for match in ARGUMENTS.finditer(text)):
        with suppress(ValueError):
            found.append(text[start : decoder.raw_decode(text, start)[1]])
    if len(found) != len(calls):
        return list(calls)
    return [
        call | {"arguments": given}
        if json.loads(given) == (read := call.get("arguments")) and isinstance(read, dict)
        else call
        for call, given in zip(calls, found, strict=True)
    ]


def parsed(value: Any, where: str) -> Any:
    """A value that may be given as its JSON text. Raises DataError."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: expected a list of objects, got text that is not JSON ({error})") from None


def calls_of_text(text: str | None, where: str) -> list[JsonObject]:
    """The tool calls of ShareGPT's role `function_call`: one object with name and arguments, or a list of them."""
    value = parsed(text, where)
    found = objects(value if isinstance(value, list) else [value], where)
    return [{"type": "function", "function": call} for call in with_arguments_of(text or "", found)]


def with_arguments(calls: Any, where: str) -> list[JsonObject]:
    """Tool calls with their arguments as given: objects, or the JSON text of OpenAI's API, which stays as it is."""
    made = []
    for call in objects(calls, f"{where}: tool_calls"):
        function = call.get("function", call)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise DataError(f"{where}: tool_calls: expected objects with a function and its name")
        arguments = function.get("arguments") or {}
        if isinstance(arguments, str):
            try:
                json.loads(arguments, parse_constant=_refuse_constant)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: tool_calls: arguments: not JSON ({error})") from None
        made.append({"type": "function"} | call | {"function": function | {"arguments": arguments}})
    return made


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _changed(message: JsonObject, change: Callable[[Any], Any]) -> JsonObject:
    calls = [
        call | {"function": call["function"] | {"arguments": change(call["function"].get("arguments", {}))}}
        for call in message.get("tool_calls", ())
    ]
    return message | ({"tool_calls": calls} if calls else {})


def rewritten(messages: Iterable[Message], text: str) -> int:
    """How many calls whose arguments the source gives as text do not stand in `text` as they are."""
    given = [call["function"].get("arguments") for message in messages for call in message.fields.get("tool_calls", ())]
    return sum(isinstance(arguments, str) and arguments not in text for arguments in given)
