"""A trained model that is asked: prompts of conversations and of plain text, and the settings of an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tunix_rt.backends.interface import Backend, ContinuousBatch, Request, State
from tunix_rt.backends.sampling import row_seed
from tunix_rt.batches.encoded import Int32
from tunix_rt.batches.reader import Reader
from tunix_rt.config.results import GenerationConfig
from tunix_rt.errors import InputError
from tunix_rt.inference.writing import Passage, Writing
from tunix_rt.traces.apart import Apart
from tunix_rt.traces.layout import Parsed
from tunix_rt.traces.thoughts import FIELD
from tunix_rt.traces.trace import Message, prompt_id


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model continues."""

    text: str
    ids: Int32
    """[N]"""


class PromptTooLong(InputError):
    """The model has no position left for an answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One complete answer."""

    text: str
    num_tokens: int
    finish_reason: str
    thoughts: str
    said: str
    parsed: Parsed

    @property
    def message(self) -> Message:
        """The assistant's turn of the conversation that goes on."""
        return Message("assistant", self.said, {FIELD: self.thoughts} if self.thoughts else {})


@dataclass(frozen=True, slots=True)
class Answerer:
    """A loaded model and its generation settings."""

    engine: Backend
    state: State
    reader: Reader
    generation: GenerationConfig
    seed: int

    @property
    def converses(self) -> bool:
        """Whether a conversation can go on; if not, each question is asked by itself."""
        return self.reader.formatter.converses

    def conversation(self, messages: Sequence[Message]) -> Prompt:
        """The messages in the run's format. Raises InputError if they cannot be asked, among them PromptTooLong."""
        text, ids, problem = self.reader.encode(messages)
        if problem is not None:
            kind = PromptTooLong if len(ids) >= self.reader.max_positions else InputError
            raise kind(f"the question cannot be asked: {problem}")
        return Prompt(text, ids)

    def continuation(self, text: str) -> Prompt:
        """A text as it is, behind the token with which the model's texts begin. Raises InputError."""
        tokenizer = self.reader.tokenizer
        begin = "" if text.startswith(tokenizer.begin_token) else tokenizer.begin_token
        if unknown := tokenizer.unknown(begin + text):
            raise InputError(f"not in the vocabulary: {''.join(sorted(unknown))!r}")
        return Prompt(text, np.array(tokenizer.ids(begin + text), np.int32))

    def settings(self, **changes: Any) -> GenerationConfig:
        """The run's own settings of an answer, with changes. Raises ValueError."""
        one = replace(self.generation, num_return_sequences=1, batch_size=1, also_greedy=None, interventions=None)
        greedy = changes.get("temperature", one.temperature) == 0
        return replace(one, **(changes | ({"top_k": None, "top_p": None} if greedy else {})))

    def seed_of(self, messages: Sequence[Message], seed: int, sample: int = 0) -> int:
        """The seed of an answer's sampling: that of `predict` for a trace without an id of its own."""
        return row_seed(seed, prompt_id(messages[-1].content), sample)

    def batch(self, rows: int) -> ContinuousBatch:
        """An empty batch of the model."""
        return self.engine.continuous(self.state, rows)

    def apart(self, prompt: Prompt) -> Apart:
        """What tells thoughts from what is said in the answers to a prompt."""
        return self.reader.formatter.apart(prompt.text)

    def read(self, writing: Writing, prompt: Prompt) -> Answer:
        """A finished answer, in the terms of the run's format."""
        reason, parsed = writing.finish_reason or "length", self.reader.formatter.parse(writing.text)
        thoughts, said = self.apart(prompt).split(writing.text, whole=True)
        return Answer(writing.text, writing.num_tokens, reason, thoughts, said, parsed)

    def answer(self, messages: Sequence[Message], show: Callable[[Passage], None], batch: ContinuousBatch) -> Answer:
        """Answer one conversation in an empty batch, each passage shown as it is written. Raises InputError."""
        prompt = self.conversation(messages)
        batch.add(Request(0, prompt.ids, self.settings(), self.seed_of(messages, self.seed)))
        writing = Writing(self.reader.tokenizer)
        while writing.finish_reason is None:
            for piece in batch.step():
                show(writing.add(piece))
        return self.read(writing, prompt)
