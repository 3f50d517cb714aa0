"""What surrounds the text of an assistant's turn, and small views of prompts and texts that chat templates need."""

from __future__ import annotations

from dataclasses import dataclass

from tunix_rt.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Turn:
    """The text of a conversation as the model sees it, and the text around what it writes."""

    prefix: str
    """Up to where the assistant begins to write."""
    end: str
    """The end token. Text that the template appends to it is dropped."""
    opened: str = ""
    """The beginning of the assistant's text that the prefix already has."""
    lead: str = ""
    """What the template puts in front of the assistant's text, and a model therefore writes itself."""
    trail: str = ""
    """White space that the template puts between the assistant's text and the end token."""
    calls: str | None = None
    """With tool calls: the text that the template makes of them and of the message."""
    thoughts: str = ""
    """Where the template has a place for thoughts: they and the template's own text around them."""
    replaced: int = 0
    """How many characters at the beginning of the assistant's text `thoughts` stand for."""


def already_open(prefix: str) -> str:
    """The part of `<think>` newline at the end of a generation prompt."""
    return next((start for start in ("<think>\n", "<think>") if prefix.endswith(start)), "")


def refuse_closed(prefix: str) -> None:
    """Raises ConfigError if a generation prompt ends with a closed block of thoughts."""
    if prefix.rstrip().endswith("</think>"):
        raise ConfigError(
            f"format.kind: the chat template ends its prompt with a closed <think> block ({prefix[-40:]!r}), so "
            "nothing is thought; set what it asks in format.variables (often enable_thinking), or format=chat"
        )


def answers(text: str) -> list[str]:
    """What a template may show of a text with thoughts: the text behind them."""
    _, closed, answer = text.rpartition("</think>")
    return [answer, answer.lstrip("\n")] if closed else []


def last(text: str) -> str:
    """The end of a text, for a message."""
    return repr(text) if len(text) <= 80 else f"…{text[-80:]!r}"


def around(text: str, at: int) -> str:
    """A text around a character, for a message."""
    return repr(text[max(0, at - 30) : at + 30])
