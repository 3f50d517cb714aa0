"""Trace ↔ labelled parts of text, from the declared template; both directions on this page.

In: traces and the section `format`. Out: parts whose concatenation is the training text, and for any text
that a model may write, its steps and answer. Judges form only; knows no token ids.

The completion is `(step step_end)* answer_start answer`. Inside content a backslash hides a separator;
backslashes count only directly in front of one (there 2n stand for n, and 2n + 1 for n and a hidden
separator), so that `\\frac` stays as it is. The reader takes separators from the left; the writer works from
the right, where it knows what the reader will see: so no content, not even one that overlaps a separator, is
read as anything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from tunix_rt.config.dataset import FormatConfig, PlainFormat
from tunix_rt.errors import ConfigError, DataError
from tunix_rt.models.tokenizer import Tokenizer
from tunix_rt.traces.chat import ChatTurn
from tunix_rt.traces.trace import Trace

PartKind = Literal["prompt", "steps", "answer", "end"]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the training text and what it is; every step is a piece of its own."""

    kind: PartKind
    text: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a completion says. `answer` is None where it is not in the format; `problem` then says why."""

    steps: tuple[str, ...]
    answer: str | None
    problem: str | None


class Turn(Protocol):
    """What stands around a completion."""

    def opening(self, prompt: str) -> str:
        """The text before the completion."""

    def closing(self, prompt: str, completion: str) -> str:
        """The text behind it: the end token. Raises DataError."""

    def prompt_of(self, text: str) -> str:
        """The inverse of `opening`."""


class PlainTurn:
    """The prompt with `prompt_end` behind it; the end token behind the completion."""

    def __init__(self, prompt_end: str, end_token: str) -> None:
        self._prompt_end = prompt_end
        self._end_token = end_token

    def opening(self, prompt: str) -> str:
        """The prompt as the model sees it."""
        return prompt + self._prompt_end

    def closing(self, prompt: str, completion: str) -> str:
        """The end token; empty without a tokenizer."""
        return self._end_token

    def prompt_of(self, text: str) -> str:
        """The prompt of an opening."""
        return text.removesuffix(self._prompt_end)


class Formatter:
    """Writes traces as text and reads completions, by one declared template."""

    def __init__(self, turn: Turn, step_end: str, answer_start: str, special_tokens: frozenset[str]) -> None:
        """Raises ConfigError where the template could not be read back."""
        _check_separators(step_end, answer_start, special_tokens)
        self._turn = turn
        self._step_end = step_end
        self._answer_start = answer_start
        self._special_tokens = special_tokens

    def prompt(self, prompt: str) -> str:
        """The text that the model continues."""
        return self._turn.opening(prompt)

    def parts(self, trace: Trace, steps: Literal["keep", "drop"] = "keep") -> tuple[Part, ...]:
        """The training text: one prompt, its steps (with `drop` none), one answer, and the end token.

        Raises DataError (the caller says of which trace): the text holds a special token, or the template
        changes it.
        """
        contents = [step.content for step in trace.steps] if steps == "keep" else []
        self._refuse_special_tokens(trace.prompt, *contents, trace.final_answer)
        written = [escape(content, self._step_end, self._step_end) + self._step_end for content in contents]
        answer = self._answer_start + escape(trace.final_answer, self._step_end, "")
        closing = self._turn.closing(trace.prompt, "".join(written) + answer)
        parts = [Part("prompt", self.prompt(trace.prompt))]
        parts += [Part("steps", text) for text in written]
        parts += [Part("answer", answer)]
        return (*parts, Part("end", closing)) if closing else tuple(parts)

    def parse(self, completion: str) -> Parsed:
        """Steps and answer of a completion without its end token: the inverse of `parts`. Never raises."""
        *steps, last = split(completion, self._step_end)
        if not last.startswith(self._answer_start):
            return Parsed(tuple(steps), None, f"no {self._answer_start!r} behind the last {self._step_end!r}")
        answer = last.removeprefix(self._answer_start)
        return Parsed(tuple(steps), answer or None, None if answer else "the answer is empty")

    def parse_prompt(self, text: str) -> str:
        """The inverse of `prompt`."""
        return self._turn.prompt_of(text)

    def _refuse_special_tokens(self, *texts: str) -> None:
        for text in texts:
            for token in self._special_tokens:
                if token in text:
                    raise DataError(f"{token!r} in {text[:60]!r} would be read as a special token; change the data")


def formatter(config: FormatConfig, tokenizer: Tokenizer | None) -> Formatter:
    """The formatter of a declared format. Without a tokenizer (plain only) texts have no end token.

    Raises ConfigError (a format that cannot be read back), ModelError (no chat template), DataError (a
    template that hides the prompt).
    """
    special_tokens = frozenset() if tokenizer is None else tokenizer.special_tokens
    if isinstance(config, PlainFormat):
        plain = PlainTurn(config.prompt_end, "" if tokenizer is None else tokenizer.end_token)
        return Formatter(plain, config.step_end, config.answer_start, special_tokens)
    if tokenizer is None:
        raise ConfigError("format.kind: 'chat' needs a tokenizer with a chat template: tokenizer=pretrained")
    chat = ChatTurn(tokenizer, config.system)
    return Formatter(chat, config.step_end, config.answer_start, special_tokens)


def _check_separators(step_end: str, answer_start: str, special_tokens: frozenset[str]) -> None:
    """Refuse what would make two traces the same text, or what decoding would lose."""
    if not step_end:
        raise ConfigError("format.step_end: empty, expected at least one character")
    for name, text in (("step_end", step_end), ("answer_start", answer_start)):
        if "\\" in text:
            raise ConfigError(f"format.{name}: {text!r} has a backslash, which is kept for hiding separators")
        for token in special_tokens:
            if token in text:
                raise ConfigError(f"format.{name}: {token!r} is a special token, which decoding leaves out")
    begun = any(step_end.startswith(answer_start[place:]) for place in range(len(answer_start)))
    if begun or step_end in answer_start:
        raise ConfigError(
            f"format.answer_start: a step_end {step_end!r} begins inside {answer_start!r}: an answer could "
            f"be read as a step; choose others"
        )


def escape(content: str, separator: str, tail: str) -> str:
    """`content` with backslashes such that `split` finds no separator in it; `tail` is what follows."""
    first = (content + tail).find(separator)
    if not 0 <= first < len(content) and not content.endswith("\\"):
        return content
    backwards: list[str] = []
    seen, in_front = tail[: len(separator)], tail.startswith(separator)
    for character in reversed(content):
        written = character
        if character == "\\":
            written = "\\\\" if in_front else "\\"
        elif (character + seen).startswith(separator):
            in_front, written = True, "\\" + character
        else:
            in_front = False
        backwards.append(written)
        seen = (written + seen)[: len(separator)]
    return "".join(reversed(backwards))


def split(text: str, separator: str) -> list[str]:
    """The pieces of a text between separators that are not hidden, hidden ones and backslashes restored."""
    if "\\" not in text:
        return text.split(separator)
    pieces, piece, position = [], "", 0
    while (found := text.find(separator, position)) >= 0:
        begin = position + len(text[position:found].rstrip("\\"))
        piece += text[position:begin] + "\\" * ((found - begin) // 2)
        if (found - begin) % 2:
            piece += separator[0]
            position = found + 1
        else:
            pieces.append(piece)
            piece, position = "", found + len(separator)
    return [*pieces, piece + text[position:]]
