"""A look at a model while it trains: greedy answers to a few prompts, their accuracy, and some of them printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tunix_rt.backends.interface import Backend, Int32, State
from tunix_rt.batches.reader import Reader
from tunix_rt.config.format import FormatConfig
from tunix_rt.config.results import GenerationConfig
from tunix_rt.terminal import say
from tunix_rt.traces.trace import Trace, normalise

NUM_PRINTED = 2


@dataclass(frozen=True, slots=True)
class Sampler:
    """Greedy generation for fixed prompts; room for the longest reference completion and a half more."""

    reader: Reader
    traces: tuple[Trace, ...]
    prompts: tuple[Int32, ...]
    generation: GenerationConfig

    @classmethod
    def of(cls, model_folder: Path, format: FormatConfig, traces: Sequence[Trace]) -> Sampler:
        """Ready the prompts that can be asked."""
        reader = Reader.of(model_folder, format)
        encoded = [(trace, *reader.encode(trace.prompt, trace.history)) for trace in traces]
        asked = [(trace, ids) for trace, _, ids, problem in encoded if problem is None]
        texts = ["".join(part.text for part in reader.formatter.parts(trace, "keep")) for trace, _ in asked]
        lengths = [
            len(reader.tokenizer.encode(text).ids) - len(ids) for text, (_, ids) in zip(texts, asked, strict=True)
        ]
        generation = GenerationConfig(
            split="validation",
            max_new_tokens=max(lengths, default=1) * 3 // 2 + 1,
            temperature=0.0,
            top_k=None,
            top_p=None,
            num_return_sequences=1,
            batch_size=max(len(asked), 1),
            baseline=False,
            max_error_rate=1.0,
        )
        return cls(reader, tuple(trace for trace, _ in asked), tuple(ids for _, ids in asked), generation)

    def accuracy(self, engine: Backend, state: State, step: int, ask: Callable[[], None]) -> float:
        """Share of the answers equal to the reference after normalisation; prints the first few.

        `ask` is called again and again, and may raise Interrupted.
        """
        ids: list[list[Int32]] = [[] for _ in self.traces]
        stopped = [False] * len(self.traces)
        for piece in engine.generate(state, self.prompts, self.generation, [0] * len(self.traces)):
            ask()
            ids[piece.index].append(piece.ids)
            stopped[piece.index] = piece.finish_reason == "stop"
        right = 0
        for index, (trace, got) in enumerate(zip(self.traces, ids, strict=True)):
            completion = self.reader.tokenizer.decode(np.concatenate(got).tolist())
            answer = self.reader.formatter.parse(completion).answer if stopped[index] else None
            correct = answer is not None and normalise(answer) == normalise(trace.final_answer)
            right += correct
            if index < NUM_PRINTED:
                say(f"  step {step} {'right' if correct else 'wrong'}: {trace.prompt!r} → {completion!r}")
        return right / max(len(self.traces), 1)
