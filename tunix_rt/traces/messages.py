"""Conversations as people's files hold them → messages before the completion, and the completion, verbatim."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tunix_rt.config.choices import ReaderName
from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject
from tunix_rt.traces.calls import calls_of_text, parsed, with_arguments
from tunix_rt.traces.thoughts import has_tags
from tunix_rt.traces.trace import CONTEXT, Message, message_of, objects, text_field

ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "function_call": "tool_call",
}
"""Other names of roles: ShareGPT's, Gemini's, and those of LLaMA-Factory's and axolotl's documentation."""
KNOWN = ("user", "assistant", "system", "developer", "tool", "tool_call")
REASONING = ("reasoning_content", "reasoning", "thinking")
"""The fields that hold a message's reasoning, separate from its `content`, in the APIs and chat templates of DeepSeek
and Qwen, of vLLM, and of gpt-oss."""
TRAINED = ("weight", "train", "training", "loss_mask")
"""Fields that say whether a message is learned: OpenAI's, axolotl's two, and verl's."""
SHOWN = ("name", "tool_calls", "tool_call_id", "reasoning_content")
"""Fields that chat templates read."""
THOUGHTS = re.compile(r"\s*<think>\n?(?P<thoughts>.*?)\n?</think>\n*(?P<said>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Rules:
    """How a dataset's text is read. `noted` counts what was deliberately changed or left out, by its name."""

    reader: ReaderName = "auto"
    consecutive: str = "error"
    """Messages of one role in a row: `error`, `join` (with an empty line between), `keep`."""
    last_user: str = "error"
    """Messages after the assistant's last one: `error` or `drop`."""
    previous_thoughts: str = "template"
    """Thoughts of previous turns: left to the chat template (`template`), or shown as written (`inline`)."""
    strip: bool = False
    """Whether white space at the ends of messages is removed."""
    max_characters: int = 1_000_000
    noted: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    """Counts the fields of records that go to `meta` only."""


def conversation(
    value: Any, where: str, rules: Rules, system: str | None = None, speaker: str = "role", text: str = "content"
) -> tuple[tuple[Message, ...], Message]:
    """(messages before the completion, the completion) of a list of messages, or of its JSON text.

    `speaker` and `text` name the fields of a message. Raises DataError naming the message and a way on.
    """
    found = objects(parsed(value, where), where)
    if not found:
        got = "missing" if value is None else "an empty list"
        raise DataError(f"{where}: {got}, expected a list of objects with {speaker} and {text}")
    said = [_message(item, f"{where}[{place}]", rules, speaker, text) for place, item in enumerate(found)]
    if system:
        said = [Message("system", system), *said]
    said = _ordered(said, where, rules)
    *before, last = said
    if not any(message.role == "user" for message in before):
        raise DataError(f"{where}: no message of the user before the assistant's last one")
    return tuple(_without_thoughts(message, rules) for message in before), _thoughts_inline(last)


def prompt_messages(value: Any, where: str, rules: Rules) -> tuple[Message, ...]:
    """The messages of a prompt that is a conversation: they end with the user's, or a tool's."""
    found = objects(parsed(value, where), where)
    said = [_message(item, f"{where}[{place}]", rules, "role", "content") for place, item in enumerate(found)]
    if not said:
        raise DataError(f"{where}: expected messages, got an empty list")
    return tuple(_without_thoughts(message, rules) for message in said)


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages, not a text."""
    return isinstance(value, list)


def tools_of(record: Mapping[str, Any], where: str) -> tuple[JsonObject, ...]:
    """The schemas in field `tools`, in older files `functions`, or their JSON text; a bare function is wrapped."""
    name = next((name for name in ("tools", "functions") if record.get(name) not in (None, "", [])), None)
    if name is None:
        return ()
    found = objects(parsed(record[name], f"{where}: {name}"), f"{where}: {name}")
    tools = tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in found)
    if not all(isinstance(tool["function"], dict) and isinstance(tool["function"].get("name"), str) for tool in tools):
        raise DataError(f"{where}: tools: expected functions with a name")
    return tools


def _message(item: Mapping[str, Any], where: str, rules: Rules, speaker: str, text: str) -> Message:
    given = item.get(speaker)
    role = role_of(given)
    if role not in KNOWN:
        names = ", ".join(sorted(item)) or "no field"
        raise DataError(f"{where}: {speaker}: {given!r} is not a known role (the message has {names})")
    content, fields = _content(item.get(text), f"{where}: {text}", rules), _fields(item, rules, speaker, text)
    if role == "tool_call":
        role, content, fields = "assistant", "", {"tool_calls": calls_of_text(content, where)}
    if item.get("function_call"):
        if "tool_calls" in fields:
            raise DataError(f"{where}: function_call and tool_calls: expected one of them")
        fields["tool_calls"] = [{"type": "function", "function": item["function_call"]}]
    if content is None and not fields.get("tool_calls"):
        text_field(item, text, where)
    weight = _weight(item, role, where)
    thoughts = [name for name in REASONING if item.get(name)]
    if len(thoughts) > 1:
        raise DataError(f"{where}: {' and '.join(thoughts)}: expected one of them")
    if thoughts and isinstance(content, str) and has_tags(content):
        raise DataError(f"{where}: {thoughts[0]}: {text} has thoughts too, which would be learned twice: remove one")
    if thoughts:
        fields["reasoning_content"] = text_field(item, thoughts[0], where)
    fields |= {"tool_calls": with_arguments(fields["tool_calls"], where)} if "tool_calls" in fields else {}
    return message_of({"role": role, "content": content or "", "weight": weight} | fields, where)


def role_of(given: Any) -> str:
    """The role of a message by any of its names; empty if it is no text."""
    return ROLES.get(given.lower(), given.lower()) if isinstance(given, str) else ""


def _fields(item: Mapping[str, Any], rules: Rules, speaker: str, text: str) -> JsonObject:
    """The fields that a template reads; others are counted as not used."""
    kept = {name: item[name] for name in SHOWN if item.get(name) not in (None, "", [])}
    known = (speaker, text, "function_call", *SHOWN, *REASONING, *TRAINED)
    for name, value in item.items():
        if name not in known and value not in (None, "", [], {}):
            rules.noted[f"message field {name} not used"] += 1
    return kept


def _content(value: Any, where: str, rules: Rules) -> str | None:
    """The text of a message: as it stands, an integer as text, or the text parts of a list, joined."""
    if type(value) is int:
        rules.noted["numbers written as text"] += 1
        return str(value)
    if not isinstance(value, list):
        return value  # type: ignore[no-any-return]  # checked by message_of
    texts = []
    for place, part in enumerate(value):
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        found = part.get("text") if isinstance(part, dict) else part
        if kind not in ("text", "input_text", "output_text") or not isinstance(found, str):
            raise DataError(f"{where}[{place}]: {kind!r}: only text can be learned")
        texts.append(found)
    return "".join(texts)


def _weight(item: Mapping[str, Any], role: str, where: str) -> float | None:
    given = [name for name in TRAINED if item.get(name) is not None]
    if not given:
        return None
    values = {float(item[name]) if isinstance(item[name], bool | int | float) else None for name in given}
    if len(values) > 1 or None in values:
        shown = ", ".join(f"{name}: {item[name]!r}" for name in given)
        raise DataError(f"{where}: {shown}: expected one number, or true or false")
    weight = values.pop()
    if role != "assistant" and weight:
        if "weight" in given or "loss_mask" in given:
            return None
        raise DataError(f"{where}: {given[0]}: only what the assistant says is learned, this message is the {role}'s")
    return weight if role == "assistant" else None


def stripped(message: Message, rules: Rules) -> Message:
    """The message without white space at its ends, if `dataset.strip` says so; then it is counted."""
    if not rules.strip or message.content == message.content.strip():
        return message
    rules.noted["white space at the ends removed"] += 1
    return replace(message, content=message.content.strip())


def _ordered(said: list[Message], where: str, rules: Rules) -> list[Message]:
    """The messages up to the assistant's last one, by the declared rules. Raises DataError."""
    roles = [message.role for message in said]
    last = max((place for place, role in enumerate(roles) if role == "assistant"), default=-1)
    shown = ", ".join(roles[:8])
    if last < 0:
        raise DataError(f"{where}: no message of the assistant, so nothing to learn (roles: {shown})")
    if last < len(said) - 1:
        if rules.last_user == "error":
            raise DataError(
                f"{where}: it ends with {roles[-1]}, so nothing is learned of that (roles: {shown}); "
                "dataset.on_last_user=drop leaves messages after the assistant's last one out"
            )
        rules.noted["messages after the assistant's last one left out"] += len(said) - 1 - last
    kept: list[Message] = []
    for message in said[: last + 1]:
        again = bool(kept) and message.role == kept[-1].role and message.role in ("user", "assistant", "system")
        if not again or rules.consecutive == "keep":
            kept.append(message)
            continue
        if rules.consecutive == "error":
            raise DataError(
                f"{where}: two messages of {message.role} in a row (roles: {shown}); "
                "dataset.on_consecutive=join makes one of them, =keep leaves it to the chat template"
            )
        rules.noted["messages in a row joined"] += 1
        kept[-1] = _joined(kept[-1], message, where)
    return kept


def _joined(one: Message, other: Message, where: str) -> Message:
    if one.weight != other.weight:
        raise DataError(f"{where}: messages in a row with the weights {one.weight} and {other.weight} cannot be joined")
    if one.fields or other.fields:
        raise DataError(f"{where}: messages in a row with thoughts or tool calls cannot be joined")
    return replace(other, content=f"{one.content}\n\n{other.content}")


def _without_thoughts(message: Message, rules: Rules) -> Message:
    """A previous turn with its thoughts as a field of their own, or in its text: both spellings become one."""
    if message.role in CONTEXT:
        return message
    if rules.previous_thoughts == "inline":
        return _thoughts_inline(message)
    found = THOUGHTS.fullmatch(message.content)
    if found is None:
        rules.noted["thoughts of previous turns left to the chat template"] += "reasoning_content" in message.fields
        return message
    fields = {"reasoning_content": found["thoughts"]} if found["thoughts"].strip() else {}
    rules.noted["thoughts of previous turns left to the chat template"] += bool(fields)
    return replace(message, content=found["said"], fields=message.fields | fields)


def _thoughts_inline(message: Message) -> Message:
    """The message with `reasoning_content` as the text that Qwen3's and DeepSeek-R1's templates make of it."""
    thoughts = message.fields.get("reasoning_content")
    if not thoughts:
        return message
    fields = {name: value for name, value in message.fields.items() if name != "reasoning_content"}
    return replace(message, content=f"<think>\n{thoughts}\n</think>\n\n{message.content}", fields=fields)


def last_user(messages: Sequence[Message]) -> str:
    """The text of the user's last message."""
    return next(message.content for message in reversed(messages) if message.role == "user")
