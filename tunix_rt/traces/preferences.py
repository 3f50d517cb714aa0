"""Two completions of one prompt, a better and a worse one, in the shapes that people's files have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunix_rt.errors import DataError
from tunix_rt.traces.messages import Rules, conversation, prompt_messages, role_of
from tunix_rt.traces.trace import Message, text_field

PROMPTS = ("prompt", "conversations", "messages", "question", "instruction")
"""Fields that may hold the prompt: a text, or messages (LLaMA-Factory has `conversations`, and `instruction`)."""
SPEAKERS = {"Human": "user", "Assistant": "assistant"}
SPOKEN = re.compile(r"\n\n(Human|Assistant): ?")
"""What begins a turn in Anthropic/hh-rlhf, whose `chosen` and `rejected` are whole dialogues as one text."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A conversation and what the assistant says to it."""

    before: tuple[Message, ...]
    said: Message


def answered(record: Mapping[str, Any], name: str, where: str, rules: Rules, system: str | None) -> Answered:
    """The completion in field `name` with the messages before it. Raises DataError: field, what is wrong, way on."""
    value = [record[name]] if isinstance(record.get(name), dict) else record.get(name)
    if isinstance(value, str) and _prompt_field(record) is None:
        value = _dialogue(value, name, where)
    if isinstance(value, list):
        whole = any(role_of(_speaker(item)) == "user" for item in value)
        prompt = [] if whole or _prompt_field(record) is None else _prompt(record, where)
        said = [_named(item) for item in (*prompt, *value)]
        return Answered(*conversation(said, f"{where}: {name}", rules, system))
    asked = prompt_messages([_named(item) for item in _prompt(record, where)], f"{where}: prompt", rules)
    instructions = () if system is None else (Message("system", system),)
    return Answered((*instructions, *asked), Message("assistant", text_field(record, name, where)))


def _prompt_field(record: Mapping[str, Any]) -> str | None:
    return next((name for name in PROMPTS if record.get(name) is not None), None)


def _prompt(record: Mapping[str, Any], where: str) -> list[Any]:
    """The prompt as messages. Raises DataError."""
    name = _prompt_field(record) or "prompt"
    if isinstance(record.get(name), list):
        return list(record[name])
    text = text_field(record, name, where)
    more = text_field(record, "input", where) if name == "instruction" and record.get("input") else ""
    return [{"role": "user", "content": f"{text}\n\n{more}" if more else text}]


def _dialogue(text: str, name: str, where: str) -> list[Any]:
    """The turns of a dialogue that is one text, as they stand. Raises DataError for other texts without a prompt."""
    parts = SPOKEN.split(text)
    if len(parts) < 5 or parts[0]:
        raise DataError(
            f"{where}: prompt: missing, and {name} is text, of which nothing says where the prompt ends: name its "
            "field (columns={prompt: FIELD}), or make chosen and rejected lists of messages"
        )
    return [{"role": SPEAKERS[who], "content": said} for who, said in zip(parts[1::2], parts[2::2], strict=True)]


def _speaker(item: Any) -> Any:
    return item.get("role", item.get("from")) if isinstance(item, dict) else None


def _named(item: Any) -> Any:
    """A message with ShareGPT's field names under their usual ones."""
    if not isinstance(item, dict) or "from" not in item:
        return item
    return {{"from": "role", "value": "content"}.get(key, key): value for key, value in item.items()}
