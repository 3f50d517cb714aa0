"""Thoughts of a conversation: where they stand in a text, and where a chat template has a place of their own for them.

Most templates show thoughts as `<think>…</think>` in the text. gpt-oss's takes them as `thinking` and writes a channel
of its own (openai/harmony, docs/format.md), Mistral's newer ones take them as parts of the content.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from tunix_rt.errors import DataError, ModelError
from tunix_rt.files import JsonObject
from tunix_rt.traces.readers import TAGS
from tunix_rt.traces.trace import Message

FIELD = "reasoning_content"
"""The field of a message that holds its thoughts; a template may know them by another name."""
PARTS = "content"
NAMES = (FIELD, "thinking", "reasoning", PARTS)
"""Where templates look for thoughts: three fields, and a part of the content of the type `thinking`."""
THOUGHT = "⟦thoughts⟧"
SAID = "⟦completion⟧"


@dataclass(frozen=True, slots=True)
class Place:
    """How a chat template shows the thoughts of an assistant's turn."""

    name: str
    """One of `NAMES`."""
    before: str = ""
    """What the template writes between its prompt and the thoughts."""
    after: str = ""
    """What it writes between the thoughts and what is said."""
    apart: bool = False
    """Whether `<think>…</think>` in the text would become something else."""


def shown(message: Message, place: Place | None) -> JsonObject:
    """A message as a chat template is given it: its thoughts, if any, where the template looks for them."""
    found = message.shown()
    if place is None or place.name == FIELD or FIELD not in found:
        return found
    thoughts = found.pop(FIELD)
    if place.name != PARTS:
        return found | {place.name: thoughts}
    parts = [{"type": "thinking", "thinking": thoughts}, {"type": "text", "text": message.content}]
    return found | {"content": parts}


def find_place(render: Callable[[Sequence[JsonObject]], str], asked: Sequence[Message], prompt: str) -> Place | None:
    """Where a template has a place for thoughts; None if it shows them nowhere.

    `render` applies the template without a generation prompt; `prompt` is what it makes of `asked` with one.
    """
    given = [message.shown() for message in asked]
    said = Message("assistant", SAID, {FIELD: THOUGHT})
    for name in NAMES:
        try:
            whole = render([*given, shown(said, Place(name))])
        except ModelError:
            continue
        if THOUGHT not in whole or SAID not in whole or "'thinking'" in whole or '"thinking"' in whole:
            continue  # a list of parts may be shown as Python writes it
        if not whole.startswith(prompt) or whole.index(SAID) < whole.index(THOUGHT):
            return Place(name)
        before, _, rest = whole[len(prompt) :].partition(THOUGHT)
        return Place(name, before, rest[: rest.index(SAID)], _apart(render, given, whole))
    return None


def _apart(render: Callable[[Sequence[JsonObject]], str], given: Sequence[JsonObject], whole: str) -> bool:
    inline = {"role": "assistant", "content": f"<think>\n{THOUGHT}\n</think>\n\n{SAID}"}
    try:
        return "".join(render([*given, inline]).split()) != "".join(whole.split())
    except ModelError:
        return True


def has_tags(text: str) -> bool:
    """Whether a text may hold thoughts."""
    return any(closing in text for _, closing in TAGS)


def without(text: str, special: Iterable[str]) -> str:
    """A text as decoding shows it: without special tokens."""
    for token in special:
        text = text.replace(token, "")
    return text


def as_tags(completion: str, place: Place, special: Iterable[str]) -> str:
    """What a model wrote, decoded without special tokens, with thoughts of a place of their own in `<think>` tags."""
    before, after = without(place.before, special), without(place.after, special)
    if not (before or after) or not completion.startswith(before) or after not in completion:
        return completion
    thoughts, _, said = completion.removeprefix(before).partition(after)
    return f"<think>\n{thoughts}\n</think>\n\n{said}"


def divided(said: Message, place: Place | None) -> Message | None:
    """For a place apart: the message with its thoughts in their field, not in its text; None if there is none to move.

    The tags, and up to one line break inside and two behind them, are the text's own marks of thoughts and give way to
    those of the template. Raises DataError for thoughts that stand behind other text, or more than once.
    """
    if place is None or not place.apart:
        return None
    for opening, closing in TAGS:
        if not said.content.lstrip().startswith(opening) and not (opening == "<think>" and closing in said.content):
            continue
        pattern = rf"\s*(?:{re.escape(opening)}\n?)?(.*?)\n?{re.escape(closing)}\n{{0,2}}(.*)"
        found = re.fullmatch(pattern, said.content, re.DOTALL)
        if found is None or any(tag in text for tag in (opening, closing) for text in found.groups()):
            raise DataError(
                f"the chat template has a place of its own for thoughts, and the assistant's text has {opening} or "
                f"{closing} elsewhere than around what it begins with: put thoughts into the field {FIELD}, or leave "
                "such rows out"
            )
        thoughts = {FIELD: found[1]} if found[1].strip() else {}
        return replace(said, content=found[2], fields=said.fields | thoughts)
    return None
