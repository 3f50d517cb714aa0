"""The section `format`: how a trace becomes text for a model, and a completion becomes a trace again."""

from __future__ import annotations

import datetime
import string
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator

from tunix_rt.config.choices import ReaderName
from tunix_rt.config.section import Text, section


def _date(text: str) -> str:
    datetime.date.fromisoformat(text)
    return text


Date = Annotated[str, AfterValidator(_date)]


@section
class PlainFormat:
    """`prompt` `prompt_end` (`step` `step_end`)* `answer_start` `answer`, then the end token."""

    kind: Literal["plain"]
    prompt_end: str
    """Text between the prompt and the first step."""
    step_end: Text
    """Text after each step; it must not occur inside one."""
    answer_start: str
    """Text before the answer."""
    reader: ReaderName | None = None
    """Finds steps and answer in a completion that the source has as text, and in what a model writes; null: `auto` for
    such sources, else `format`: what the format itself writes is read back (a source's text is read by `auto`). An
    objective other than `sft` that begins from a run in the same format reads texts as that run does."""


@section
class ChatFormat:
    """The same completion as an assistant's turn in the tokenizer's own chat template, after the previous turns."""

    kind: Literal["chat"]
    system: str | None
    """System prompt; null: the template's own default."""
    variables: dict[str, str | int | bool]
    """Other variables of the template, for example `{enable_thinking: false}`."""
    date: Date | None
    """YYYY-MM-DD, for templates that insert today's date; otherwise the training text would change every day."""
    step_end: Text
    """Text after each step; it must not occur inside one."""
    answer_start: str
    """Text before the answer."""
    reader: ReaderName | None = None
    """Finds steps and answer in a completion that the source has as text, and in what a model writes; null: `auto` for
    such sources, else `format`: what the format itself writes is read back (a source's text is read by `auto`). An
    objective other than `sft` that begins from a run in the same format reads texts as that run does."""


@section
class ThinkFormat:
    """`prompt` `prompt_end` `<think>` steps `</think>` `answer`, then the end token."""

    kind: Literal["think"]
    prompt_end: str
    """Text between the prompt and `<think>`."""
    step_end: Text
    """Text between two steps."""
    reader: ReaderName | None = None
    """Finds steps and answer in a completion that the source has as text, and in what a model writes; null: `auto` for
    such sources, else `format`: what the format itself writes is read back (a source's text is read by `auto`). An
    objective other than `sft` that begins from a run in the same format reads texts as that run does."""


@section
class ThinkChatFormat:
    """`<think>` steps `</think>` `answer` as an assistant's turn in the tokenizer's own chat template."""

    kind: Literal["think_chat"]
    system: str | None
    variables: dict[str, str | int | bool]
    date: Date | None
    step_end: Text
    """Text between two steps."""
    reader: ReaderName | None = None
    """Finds steps and answer in a completion that the source has as text, and in what a model writes; null: `auto` for
    such sources, else `format`: what the format itself writes is read back (a source's text is read by `auto`). An
    objective other than `sft` that begins from a run in the same format reads texts as that run does."""


@section
class TemplateFormat:
    """Custom text around each part of a trace: `{prompt}`, `{step}` (and `{number}`), `{answer}`."""

    kind: Literal["template"]
    prompt: Text
    """The text that the model continues."""
    step: Text
    """Written once per step; the text after `{step}` ends it. `{number}` counts from 1."""
    answer: Text
    """The end token follows."""
    reader: ReaderName | None = None
    """Finds steps and answer in a completion that the source has as text, and in what a model writes; null: `auto` for
    such sources, else `format`: what the format itself writes is read back (a source's text is read by `auto`). An
    objective other than `sft` that begins from a run in the same format reads texts as that run does."""

    def __post_init__(self) -> None:
        for name in ("prompt", "step", "answer"):
            pieces(name, getattr(self, name))


FormatConfig = Annotated[
    PlainFormat | ChatFormat | ThinkFormat | ThinkChatFormat | TemplateFormat, Discriminator("kind")
]


def asks_for_answer(format: FormatConfig) -> bool:
    """Whether text in front of the answer tells it from a step."""
    if format.reader is not None:
        return format.reader not in ("lines", "whole")
    if isinstance(format, TemplateFormat):
        return bool(pieces("answer", format.answer)[0][0].strip())
    return isinstance(format, ThinkFormat | ThinkChatFormat) or bool(format.answer_start.strip())


def pieces(name: str, text: str) -> tuple[tuple[str, ...], str]:
    """The text before `{name}`, split at `{number}`, and the text after it; `{{` and `}}` are braces.

    Raises ValueError if `{name}` does not occur exactly once, `{number}` occurs after it or outside `step`,
    or another field is named.
    """
    allowed = ("number", name) if name == "step" else (name,)
    shown = " and ".join(f"{{{field}}}" for field in allowed)
    literals, fields = [""], []
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"{name}: {text!r}: {error} (a brace of the text itself is written twice)") from None
    for literal, field, spec, conversion in parsed:
        literals[-1] += literal
        if field is None:
            continue
        if field not in allowed or spec or conversion:
            raise ValueError(f"{name}: unknown field in {text!r}, there is {shown} (a brace of the text: twice)")
        fields.append(field)
        literals.append("")
    if fields not in ([name], ["number", name]):
        raise ValueError(f"{name}: {text!r}: expected {{{name}}} once" + (", {number} before it" * (name == "step")))
    return tuple(literals[:-1]), literals[-1]
