"""Trace ↔ labelled parts of text, by the declared format; both directions in this module.

A format is a turn (the text around the prompt and after the completion: `PlainTurn`, `chat.ChatTurn`) and
a layout (how steps and answer form a completion: `layout`). Judges form only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tunix_rt.config.format import (
    FormatConfig,
    PlainFormat,
    TemplateFormat,
    ThinkChatFormat,
    ThinkFormat,
    pieces,
)
from tunix_rt.errors import ConfigError, DataError
from tunix_rt.models.tokenizer import Tokenizer
from tunix_rt.traces.chat import PROBE, ChatTurn
from tunix_rt.traces.layout import Layout, Parsed, Think, already_open, lines, think
from tunix_rt.traces.trace import Message, Trace

PartKind = Literal["prompt", "previous_turns", "steps", "answer", "end"]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the training text and its kind; every step and every previous turn is a separate piece."""

    kind: PartKind
    text: str


class PlainTurn:
    """The prompt between two texts; the end token after the completion. Supports no previous turns."""

    def __init__(self, prompt_start: str, prompt_end: str, tokenizer: Tokenizer | None) -> None:
        begin = "" if tokenizer is None else tokenizer.begin_token
        self._prompt_start = prompt_start if begin and prompt_start.startswith(begin) else begin + prompt_start
        self._prompt_end = prompt_end
        self._end_token = "" if tokenizer is None else tokenizer.end_token

    def prefix(self, prompt: str, history: Sequence[Message]) -> str:
        """The prompt as the model sees it, after the token that the tokenizer prepends to any text."""
        if history:
            raise DataError("the trace has previous turns (history): format=chat and format=think_chat write them")
        return self._prompt_start + prompt + self._prompt_end

    def previous_turns(self, prompt: str, history: Sequence[Message]) -> list[tuple[int, int]]:
        """Always empty."""
        return []

    def suffix(self, prompt: str, history: Sequence[Message], completion: str, shown: Sequence[str]) -> str:
        """The end token; empty without a tokenizer."""
        return self._end_token

    def prompt_of(self, text: str) -> str:
        """The prompt of a prefix."""
        return text.removeprefix(self._prompt_start).removesuffix(self._prompt_end)


Turn = PlainTurn | ChatTurn


class Formatter:
    """Writes traces as text and reads completions, by one declared format."""

    def __init__(self, turn: Turn, layout: Layout, special_tokens: frozenset[str]) -> None:
        """Raises ConfigError if decoding would drop text that the layout writes."""
        for name, text in layout.literals:
            for token in special_tokens:
                if token in text:
                    raise ConfigError(f"format.{name}: {token!r} is a special token, which decoding leaves out")
        self._turn = turn
        self._layout = layout
        self._special_tokens = special_tokens

    def prompt(self, prompt: str, history: Sequence[Message] = ()) -> str:
        """The text that the model continues. Raises DataError if the format does not support previous turns."""
        return self._turn.prefix(prompt, history)

    def parts(
        self, trace: Trace, steps: Literal["keep", "drop"] = "keep", previous_turns: bool = False
    ) -> tuple[Part, ...]:
        """The training text: one prompt, its steps (none with `drop`), one answer, and the end token.

        `previous_turns` separates the assistant's previous turns from the rest of the prompt, to be learned too.
        Raises DataError (the caller adds the trace): the text holds a special token, or the template changes it.
        """
        contents = [step.content for step in trace.steps] if steps == "keep" else []
        said = [message.content for message in trace.history]
        self._refuse_special_tokens(*said, trace.prompt, *contents, trace.final_answer)
        written, answer = self._layout.write(contents, trace.final_answer)
        prefix, completion = self.prompt(trace.prompt, trace.history), "".join(written) + answer
        shown, whole = [prefix + completion], completion
        if isinstance(self._layout, Think):
            whole = self._layout.opened + completion
            bare = prefix.removesuffix(self._layout.opened)
            shown += [bare + gap + trace.final_answer for gap in ("", "\n\n")]  # a template may leave out the reasoning
        suffix = self._turn.suffix(trace.prompt, trace.history, whole, shown)
        parts, position = [], 0
        for start, end in self._turn.previous_turns(trace.prompt, trace.history) if previous_turns else ():
            parts += [Part("prompt", prefix[position:start]), Part("previous_turns", prefix[start:end])]
            position = end
        parts += [Part("prompt", prefix[position:]), *(Part("steps", text) for text in written), Part("answer", answer)]
        return (*parts, Part("end", suffix)) if suffix else tuple(parts)

    def parse(self, completion: str) -> Parsed:
        """Steps and answer of a completion without its end token: the inverse of `parts`. Never raises."""
        return self._layout.read(completion)

    def parse_prompt(self, text: str) -> str:
        """The inverse of `prompt`, for a trace without history."""
        return self._turn.prompt_of(text)

    def _refuse_special_tokens(self, *texts: str) -> None:
        for text in texts:
            for token in self._special_tokens:
                if token in text:
                    raise DataError(f"{token!r} in {text[:60]!r} would be read as a special token; change the data")


def formatter(config: FormatConfig, tokenizer: Tokenizer | None) -> Formatter:
    """The formatter of a declared format. Without a tokenizer (not for chats) texts have no end token.

    Raises ConfigError (a format that cannot be read back), ModelError (no chat template), DataError (a
    template that hides the prompt).
    """
    special_tokens = frozenset() if tokenizer is None else tokenizer.special_tokens
    if isinstance(config, TemplateFormat):
        (start,), end = pieces("prompt", config.prompt)
        return Formatter(PlainTurn(start, end, tokenizer), lines(config), special_tokens)
    if isinstance(config, PlainFormat | ThinkFormat):
        layout = lines(config) if isinstance(config, PlainFormat) else think(config.step_end)
        return Formatter(PlainTurn("", config.prompt_end, tokenizer), layout, special_tokens)
    if tokenizer is None:
        raise ConfigError(f"format.kind: {config.kind!r} needs a tokenizer with a chat template: tokenizer=pretrained")
    chat = ChatTurn(tokenizer, config)
    if isinstance(config, ThinkChatFormat):
        return Formatter(chat, think(config.step_end, already_open(chat.prefix(PROBE, ()))), special_tokens)
    return Formatter(chat, lines(config), special_tokens)
