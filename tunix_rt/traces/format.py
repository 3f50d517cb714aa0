"""Trace ↔ labelled parts of text, by the declared format; both directions in this module.

A format is a turn (the text around the prompt and after the completion: `PlainTurn`, `chat.ChatTurn`) and a layout (how
the steps and the answer of a trace of parts form a completion: `layout`). A completion that the source has as text is
never laid out: it is learned as it stands, and a declared reader labels it. Judges form only.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tunix_rt.config.choices import ReaderName
from tunix_rt.config.format import (
    FormatConfig,
    PlainFormat,
    TemplateFormat,
    ThinkChatFormat,
    ThinkFormat,
    pieces,
)
from tunix_rt.errors import ConfigError, DataError
from tunix_rt.files import JsonObject, to_json
from tunix_rt.models.tokenizer import Tokenizer
from tunix_rt.traces.apart import Apart
from tunix_rt.traces.causes import refuse_taken
from tunix_rt.traces.chat import PROBE, ChatTurn
from tunix_rt.traces.cuts import Cuts, cuts_of_reading
from tunix_rt.traces.layout import Layout, Parsed, Think, lines, think
from tunix_rt.traces.readers import read
from tunix_rt.traces.trace import Message, Span, Trace
from tunix_rt.traces.turn import Turn, already_open, refuse_closed

PartKind = Literal["prompt", "previous_turns", "message", "steps", "answer", "end"]
OWN = (None, "format")
"""Readers with which the layout reads back what it writes itself."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the training text and its kind; every step of parts and every previous turn is a separate piece."""

    kind: PartKind
    """Its weight is that of `dataset.loss_weights`; `message`, an assistant's turn with a weight of its own: 1."""
    text: str
    scale: float = 1.0
    """Multiplies the weight."""


class PlainTurn:
    """The prompt between two texts; the end token after the completion. Supports one message of the user only."""

    def __init__(self, prompt_start: str, prompt_end: str, tokenizer: Tokenizer | None) -> None:
        begin = "" if tokenizer is None else tokenizer.begin_token
        self._prompt_start = prompt_start if begin and prompt_start.startswith(begin) else begin + prompt_start
        self._prompt_end = prompt_end
        self._tokenizer, self._end_token = tokenizer, "" if tokenizer is None else tokenizer.end_token

    def prefix(self, messages: Sequence[Message], tools: Sequence[JsonObject] = ()) -> str:
        """The prompt as the model sees it, after the token that the tokenizer prepends to any text."""
        if len(messages) > 1 or tools:
            what = "tools" if tools else f"messages of {', '.join(message.role for message in messages[:6])}"
            raise DataError(f"the trace has {what}, this format has one prompt: format=chat shows all of them")
        return self._between(self._prompt_start, messages[0].content, self._prompt_end, "prompt")

    def previous_turns(
        self, messages: Sequence[Message], tools: Sequence[JsonObject], learned: Container[int]
    ) -> list[tuple[int, Span]]:
        """Always empty."""
        return []

    def turn(self, messages: Sequence[Message], tools: Sequence[JsonObject], said: Message) -> Turn:
        """The prompt, the text as it is, and the end token (empty without a tokenizer)."""
        if said.fields.get("tool_calls"):
            raise DataError("the completion has tool calls, which only a chat template can write: format=chat")
        prefix = self.prefix(messages, tools)
        self._between(prefix, said.content, self._end_token, "completion")
        return Turn(prefix, self._end_token)

    def _between(self, before: str, text: str, after: str, who: str) -> str:
        whole = before + text + after
        if self._tokenizer is not None:
            refuse_taken(self._tokenizer, whole, (len(before), len(before) + len(text)), who)
        return whole

    def plain(self, completion: str) -> str:
        """The completion as it is."""
        return completion

    def apart(self, thinks: bool, opened: bool) -> Apart:
        """Thoughts are told from what is said by tags alone."""
        return Apart(thinks, opened)

    def prompt_of(self, text: str) -> str:
        """The prompt of a prefix."""
        return text.removeprefix(self._prompt_start).removesuffix(self._prompt_end)


class Formatter:
    """Writes traces as text and reads completions, by one declared format."""

    def __init__(
        self, turn: PlainTurn | ChatTurn, layout: Layout, reader: ReaderName | None, special_tokens: frozenset[str]
    ) -> None:
        """Raises ConfigError if decoding would drop text that the layout writes."""
        for name, text in layout.literals:
            for token in special_tokens:
                if token in text:
                    raise ConfigError(f"format.{name}: {token!r} is a special token, which decoding leaves out")
        self._turn, self._layout, self._reader = turn, layout, reader
        self._special_tokens = special_tokens

    def prompt(self, messages: Sequence[Message], tools: Sequence[JsonObject] = ()) -> str:
        """The text that the model continues. Raises DataError if the format cannot show the messages."""
        return self._turn.prefix(messages, tools)

    def parts(
        self, trace: Trace, steps: Literal["keep", "drop"] = "keep", previous_turns: bool = False
    ) -> tuple[Part, ...]:
        """The training text: one prompt, its steps (none with `drop`), one answer, and the end token.

        `previous_turns` separates the assistant's previous turns from the rest of the prompt, to be learned too; those
        that declare a weight always are. Raises DataError (the caller adds the trace): the text holds a special token,
        or the template changes it.
        """
        said, labelled = self._completion(trace, steps)
        shown = [
            text for m in (*trace.conversation, said) for text in (m.content, to_json(m.fields) if m.fields else "")
        ]
        self._refuse_special_tokens(*shown, *map(to_json, trace.tools))
        turn = self._turn.turn(trace.conversation, trace.tools, said)
        labelled = _without_start(labelled, turn.replaced or len(turn.opened))
        if turn.thoughts:
            labelled = [Part("steps", turn.thoughts), *labelled]
        if turn.calls is not None:
            labelled = [Part("answer", turn.calls)]
        labelled[0] = replace(labelled[0], text=turn.lead + labelled[0].text)
        labelled[-1] = replace(labelled[-1], text=labelled[-1].text + turn.trail)
        weight = 1.0 if said.weight is None else said.weight
        own = [Part(part.kind, part.text, weight) for part in (*labelled, Part("end", turn.end)) if part.text]
        return (*self._prompt_parts(trace, turn.prefix, previous_turns), *own)

    def plain(self, completion: str) -> str:
        """What the assistant says in a completion without its end token: the text of a message."""
        return self._turn.plain(completion)

    def parse(self, completion: str) -> Parsed:
        """Steps and answer of a completion without its end token: the inverse of `parts`. Never raises."""
        text = self._turn.plain(completion)
        if self._reader in OWN:
            return self._layout.read(text)
        reading = read(text, self._reader)
        answer = None if reading.answer is None else text[slice(*reading.answer)]
        return Parsed(tuple(text[slice(*span)] for span in reading.steps), answer, reading.problem)

    @property
    def converses(self) -> bool:
        """Whether it can show more than one prompt of the user."""
        return isinstance(self._turn, ChatTurn)

    def apart(self, prompt: str) -> Apart:
        """What tells thoughts from what is said in the completions of a prompt, as text."""
        thinks = isinstance(self._layout, Think) or self._reader in ("auto", "think")
        return self._turn.apart(thinks, bool(already_open(prompt)))

    def cuts(self, completion: str) -> Cuts | None:
        """Where a completion can be cut (`cuts.Cuts`); None if it has no steps, no answer, or is not in the format."""
        text = self._turn.plain(completion)
        start = completion.find(text)
        if start < 0:  # the template's own marks of thoughts, which decoding leaves out
            return None
        found = self._layout.cuts(text) if self._reader is None else cuts_of_reading(text, read(text, self._reader))
        return None if found is None else found.behind(completion[:start])

    def parse_prompt(self, text: str) -> str:
        """The inverse of `prompt`, for a single message of the user."""
        return self._turn.prompt_of(text)

    def _completion(self, trace: Trace, steps: Literal["keep", "drop"]) -> tuple[Message, list[Part]]:
        """What the assistant says, and the same text in labelled pieces."""
        if trace.completion is None:
            contents = [step.content for step in trace.steps] if steps == "keep" else []
            written, answer = self._layout.write(contents, trace.final_answer)
            parts = [*(Part("steps", text) for text in written), Part("answer", answer)]
            text = "".join(part.text for part in parts)
            return Message("assistant", self._layout.opened + text), [Part("steps", self._layout.opened), *parts]
        text = trace.completion.content
        reading = read(text, self._reader or "auto")
        learned = reading.learned
        if steps == "drop":
            if reading.answer is None and text.strip():
                raise DataError(f"dataset.steps=drop: it is not clear what the answer is: {reading.problem}")
            text = text[learned:].lstrip("\n")
            return replace(trace.completion, content=text), [Part("answer", text)]
        start = learned if trace.answer_span is None else trace.answer_span[0]
        return trace.completion, [Part("steps", text[:start]), Part("answer", text[start:])]

    def _prompt_parts(self, trace: Trace, prefix: str, previous_turns: bool) -> list[Part]:
        messages = trace.conversation
        weights = [1.0 if m.weight is None and previous_turns else m.weight or 0.0 for m in messages]
        learned = {place for place, m in enumerate(messages) if m.role == "assistant" and weights[place] > 0}
        parts, position = [], 0
        for place, (start, end) in self._turn.previous_turns(messages, trace.tools, learned) if learned else ():
            kind: PartKind = "previous_turns" if messages[place].weight is None else "message"
            parts.append(Part("prompt", prefix[position:start]))
            parts.append(Part(kind, prefix[start:end], weights[place]))
            position = end
        return [*parts, Part("prompt", prefix[position:])]

    def _refuse_special_tokens(self, *texts: str) -> None:
        for text in texts:
            for token in self._special_tokens:
                if token in text:
                    raise DataError(f"{token!r} in {text[:60]!r} would be read as a special token; change the data")


def _without_start(parts: Sequence[Part], length: int) -> list[Part]:
    """The parts without the first characters, which the prompt has already."""
    left = []
    for part in parts:
        cut = min(length, len(part.text))
        length -= cut
        left.append(Part(part.kind, part.text[cut:], part.scale) if cut else part)
    return [part for part in left if part.text]


def formatter(config: FormatConfig, tokenizer: Tokenizer | None) -> Formatter:
    """The formatter of a declared format. Without a tokenizer (not for chats) texts have no end token.

    Raises ConfigError (a format that cannot be read back), ModelError (no chat template), DataError (a
    template that hides the prompt).
    """
    special_tokens = frozenset() if tokenizer is None else tokenizer.special_tokens
    if isinstance(config, TemplateFormat):
        (start,), end = pieces("prompt", config.prompt)
        return Formatter(PlainTurn(start, end, tokenizer), lines(config), config.reader, special_tokens)
    if isinstance(config, PlainFormat | ThinkFormat):
        layout = lines(config) if isinstance(config, PlainFormat) else think(config.step_end)
        return Formatter(PlainTurn("", config.prompt_end, tokenizer), layout, config.reader, special_tokens)
    if tokenizer is None:
        raise ConfigError(f"format.kind: {config.kind!r} needs a tokenizer with a chat template: tokenizer=pretrained")
    chat = ChatTurn(tokenizer, config)
    if isinstance(config, ThinkChatFormat):
        prefix = chat.prefix([Message("user", PROBE)])
        if config.reader in OWN:
            refuse_closed(prefix)
        return Formatter(chat, think(config.step_end, already_open(prefix)), config.reader, special_tokens)
    return Formatter(chat, lines(config), config.reader, special_tokens)
