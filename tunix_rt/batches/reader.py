"""Converts between text and tokens for one model folder. Shared by all generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tunix_rt.batches.encode import doubled_begin
from tunix_rt.batches.encoded import Int32
from tunix_rt.config.format import FormatConfig
from tunix_rt.errors import DataError
from tunix_rt.models.folder import read_architecture
from tunix_rt.models.tokenizer import Tokenizer
from tunix_rt.traces.format import Formatter, formatter
from tunix_rt.traces.trace import Message


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

    def encode(self, prompt: str, history: Sequence[Message] = ()) -> tuple[str, Int32, str | None]:
        """The prompt as formatted text, its token ids (int32 [N]), and why it cannot be asked (None if it can)."""
        try:
            text = self.formatter.prompt(prompt, history)
        except DataError as error:
            return prompt, np.zeros(0, np.int32), str(error)
        if unknown := self.tokenizer.unknown(text):
            return text, np.zeros(0, np.int32), f"not in the vocabulary: {''.join(sorted(unknown))!r}"
        ids = self.tokenizer.ids(text)
        problem = doubled_begin(ids, self.tokenizer)
        if not ids:
            problem = "the prompt is empty"
        elif problem is None and len(ids) >= self.max_positions:
            problem = f"prompt of {len(ids)} tokens, the model has {self.max_positions} positions"
        return text, np.array(ids, np.int32), problem
