"""Converts between text and tokens for one model folder. Shared by all generation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from tunix_rt.batches.encode import doubled_begin
from tunix_rt.batches.encoded import Int32
from tunix_rt.config.format import FormatConfig
from tunix_rt.errors import DataError, ModelError
from tunix_rt.files import JsonObject
from tunix_rt.models.folder import read_architecture
from tunix_rt.models.token_ends import token_ends
from tunix_rt.models.tokenizer import Tokenizer
from tunix_rt.traces.format import Formatter, formatter
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.trace import Message, Trace


@dataclass(frozen=True, slots=True)
class Question:
    """The prompt of a trace as it is asked; `sample` numbers several answers to the same one."""

    trace: Trace
    sample: int
    prompt: str
    """As formatted text."""
    ids: Int32
    problem: str | None
    """Why it cannot be asked; None if it can."""

    @property
    def key(self) -> tuple[str, int]:
        return self.trace.id, self.sample

    def failed(self, reason: str) -> Prediction:
        """The record of a question that got no answer."""
        return Prediction(
            id=self.trace.id,
            sample=self.sample,
            prompt=self.prompt,
            reference=self.trace.final_answer,
            completion="",
            steps=(),
            answer=None,
            finish_reason="error",
            error=reason,
            num_prompt_tokens=len(self.ids),
            num_new_tokens=0,
            logprobs=(),
        )

    def answered(
        self, reader: Reader, ids: Int32, logprobs: Iterable[float], finish_reason: Literal["stop", "length"]
    ) -> Prediction:
        """The record of an answer of the tokens `ids`."""
        said = self.said(reader, ids, finish_reason)
        return replace(
            said,
            token_ends=token_ends(reader.tokenizer, ids.tolist(), said.completion),
            logprobs=tuple(round(float(value), 6) for value in logprobs),
        )

    def said(self, reader: Reader, ids: Int32, finish_reason: Literal["stop", "length"]) -> Prediction:
        """The same without what is recorded of single tokens."""
        completion = reader.tokenizer.decode(ids.tolist())
        parsed = reader.formatter.parse(completion)
        return replace(
            self.failed(""),
            completion=completion,
            steps=parsed.steps,
            answer=parsed.answer if finish_reason == "stop" else None,
            finish_reason=finish_reason,
            error=None,
            num_new_tokens=len(ids),
        )


@dataclass(frozen=True, slots=True)
class Reader:
    """Turns a trace's prompt into token ids, and a completion back into steps and answer."""

    tokenizer: Tokenizer
    formatter: Formatter
    max_positions: int

    @classmethod
    def of(cls, model_folder: Path, format: FormatConfig) -> Reader:
        """The reader of a model folder. Raises ModelError."""
        tokenizer = Tokenizer.load(model_folder)
        return cls(tokenizer, formatter(format, tokenizer), read_architecture(model_folder).max_positions)

    def question(self, trace: Trace, sample: int = 0) -> Question:
        """What is asked about a trace."""
        return Question(trace, sample, *self.encode(trace.conversation, trace.tools))

    def encode(self, messages: Sequence[Message], tools: Sequence[JsonObject] = ()) -> tuple[str, Int32, str | None]:
        """The prompt as formatted text, its token ids (int32 [N]), and why it cannot be asked (None if it can)."""
        try:
            text = self.formatter.prompt(messages, tools)
        except (DataError, ModelError) as error:
            return messages[-1].content, np.zeros(0, np.int32), str(error)
        if unknown := self.tokenizer.unknown(text):
            return text, np.zeros(0, np.int32), f"not in the vocabulary: {''.join(sorted(unknown))!r}"
        ids = self.tokenizer.ids(text)
        problem = doubled_begin(ids, self.tokenizer)
        if not ids:
            problem = "the prompt is empty"
        elif problem is None and len(ids) >= self.max_positions:
            problem = f"prompt of {len(ids)} tokens, the model has {self.max_positions} positions"
        return text, np.array(ids, np.int32), problem
