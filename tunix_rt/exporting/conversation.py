"""The prompts of a run as texts between messages: found by asking its own format, and proved by asking it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tunix_rt.errors import DataError, ModelError
from tunix_rt.traces.trace import Message

Prompt = Callable[[Sequence[Message]], str]
"""The run's own prompt of a conversation. Raises DataError or ModelError for one that it does not show."""
MARKS = ("⟦one⟧", "⟦two⟧", "⟦three⟧", "⟦four⟧")
FIRST = ""
"""In place of a role: nothing is before the message."""
SAID = ("12", "a b", "a\nb", "Answer: {{ 3 }}", 'say "x" \\ `y` é', "# 1. *a*")
"""Contents with which the texts are proved."""


@dataclass(frozen=True, slots=True)
class Turns:
    """What is written around the messages of a conversation."""

    between: Mapping[tuple[str, str], str]
    """(role before, role) → the text between the two; FIRST: what stands before the first message."""
    tail: str
    """Behind the last message."""

    @property
    def several(self) -> bool:
        """Whether previous turns can be shown."""
        return ("user", "assistant") in self.between

    @property
    def system(self) -> bool:
        """Whether a system message can be shown."""
        return (FIRST, "system") in self.between

    def prompt(self, messages: Sequence[Message]) -> str:
        """The prompt of a conversation that it can show."""
        text, before = "", FIRST
        for message in messages:
            text += self.between[before, message.role] + message.content
            before = message.role
        return text + self.tail


def find_turns(prompt: Prompt, answers: Sequence[str]) -> Turns:
    """The texts of a run's prompts; without previous turns, or a system message, where its format shows none exactly.

    `answers`: what an assistant says in it. Raises ModelError if not even one question is asked in this way.
    """
    head, tail = _cut(prompt([Message("user", MARKS[0])]), MARKS[:1])
    turns = Turns({(FIRST, "user"): head}, tail)
    if not _holds(turns, prompt, [[Message("user", text)] for text in SAID]):
        raise ModelError("the prompt of one question is not a text before it and one behind it")
    with_system = _grown(turns, prompt, ("system", "user"), [["system", "user"]], SAID)
    once = _grown(with_system, prompt, ("user", "assistant", "user"), [["user", "assistant", "user"]], answers)
    longer = ["user", "assistant", "user", "assistant", "user"]
    patterns = [longer, *([["system", *longer]] if once.system else [])]
    conversations = [_conversation(pattern, place, answers) for pattern in patterns for place in range(len(SAID))]
    return once if once.several and _holds(once, prompt, conversations) else with_system


def _grown(
    turns: Turns, prompt: Prompt, roles: Sequence[str], patterns: Sequence[Sequence[str]], answers: Sequence[str]
) -> Turns:
    """The turns with what such a conversation shows besides; the same if that does not hold for others."""
    try:
        texts = _cut(prompt([Message(*pair) for pair in zip(roles, MARKS, strict=False)]), MARKS[: len(roles)])
    except (DataError, ModelError):
        return turns
    found = dict(zip(zip([FIRST, *roles], roles, strict=False), texts, strict=False))
    grown = Turns({**found, **turns.between}, turns.tail)
    conversations = [_conversation(pattern, place, answers) for pattern in patterns for place in range(len(SAID))]
    return grown if _holds(grown, prompt, conversations) else turns


def _conversation(roles: Sequence[str], place: int, answers: Sequence[str]) -> list[Message]:
    """Messages of these roles, with other contents for each `place`."""
    said = {role: answers if role == "assistant" else SAID for role in roles}
    return [Message(role, said[role][(place + i) % len(said[role])]) for i, role in enumerate(roles)]


def _holds(turns: Turns, prompt: Prompt, conversations: Sequence[Sequence[Message]]) -> bool:
    """Whether every conversation is shown, and as it would be by the turns."""
    try:
        return all(prompt(messages) == turns.prompt(messages) for messages in conversations)
    except (DataError, ModelError):
        return False


def _cut(text: str, marks: Sequence[str]) -> list[str]:
    """The pieces of a text before, between and behind the marks. Raises ModelError: one is not there once, in order."""
    pieces = []
    for mark in marks:
        piece, found, text = text.partition(mark)
        if not found or mark in text:
            raise ModelError("the prompt does not show each message once, in their order")
        pieces.append(piece)
    return [*pieces, text]
