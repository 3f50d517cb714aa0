"""Answer one question with a trained model: the text is streamed, then the parsed answer shown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TextIO

from tunix_rt.backends.interface import Backend, State
from tunix_rt.backends.sampling import row_seed
from tunix_rt.batches.reader import Reader
from tunix_rt.config.results import GenerationConfig
from tunix_rt.errors import InputError
from tunix_rt.terminal import visible
from tunix_rt.traces.layout import Parsed
from tunix_rt.traces.trace import Message, prompt_id


@dataclass(frozen=True, slots=True)
class Answerer:
    """A loaded model and its generation settings."""

    engine: Backend
    state: State
    reader: Reader
    generation: GenerationConfig
    seed: int

    def answer(self, question: str, stream: TextIO) -> Parsed:
        """Write the completion to `stream` as it is generated, then the answer. Raises InputError."""
        _, ids, problem = self.reader.encode([Message("user", question)])
        if problem is not None:
            raise InputError(f"the question cannot be asked: {problem}")
        generation = replace(self.generation, num_return_sequences=1, batch_size=1)
        made: list[int] = []
        shown, reason = "", "length"
        for piece in self.engine.generate(self.state, [ids], generation, [row_seed(self.seed, prompt_id(question), 0)]):
            made += piece.ids.tolist()
            text = self.reader.tokenizer.decode(made)
            if text.startswith(shown) and not text.endswith("\N{REPLACEMENT CHARACTER}"):
                stream.write(visible(text[len(shown) :], keep="\n\t"))
                stream.flush()
                shown = text
            reason = piece.finish_reason or reason
        completion = self.reader.tokenizer.decode(made)
        stream.write(visible(completion[len(shown) :] + "\n", keep="\n\t"))
        parsed = self.reader.formatter.parse(completion)
        if reason == "length":
            stream.write(f"(stopped after {len(made)} tokens, the end was not reached)\n")
        elif parsed.answer is None:
            stream.write(f"(not in the format: {parsed.problem})\n")
        else:
            stream.write(f"→ {visible(parsed.answer, keep=chr(10))}\n")
        stream.flush()
        return parsed
