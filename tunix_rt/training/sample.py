"""Samples during training: greedy answers to a few prompts, their accuracy, and some of them printed."""

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
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.trace import Trace

NUM_PRINTED = 2
Verdict = Callable[[Prediction], bool]
"""Whether an answer is right, by the rules of evaluation."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """Greedy generation for fixed prompts, up to 1.5 times the longest reference completion."""

    reader: Reader
    traces: tuple[Trace, ...]
    prompts: tuple[Int32, ...]
    generation: GenerationConfig

    @classmethod
    def of(cls, model_folder: Path, format: FormatConfig, traces: Sequence[Trace]) -> Sampler:
        """Encode the prompts, without those that cannot be asked."""
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

    def accuracy(
        self, engine: Backend, state: State, step: int, is_right: Verdict, ask: Callable[[], None] = lambda: None
    ) -> float:
        """Share of the answers that are right; prints the first few.

        `ask` is called for every generated piece, and may raise Interrupted.
        """
        predictions = self._predictions(engine, state, ask)
        verdicts = [is_right(prediction) for prediction in predictions]
        for prediction, right in list(zip(predictions, verdicts, strict=True))[:NUM_PRINTED]:
            say(f"  step {step} {'right' if right else 'wrong'}: {prediction.prompt!r} → {prediction.completion!r}")
        return sum(verdicts) / max(len(verdicts), 1)

    def _predictions(self, engine: Backend, state: State, ask: Callable[[], None]) -> list[Prediction]:
        ids: list[list[Int32]] = [[] for _ in self.traces]
        stopped = [False] * len(self.traces)
        for piece in engine.generate(state, self.prompts, self.generation, [0] * len(self.traces)):
            ask()
            ids[piece.index].append(piece.ids)
            stopped[piece.index] = piece.finish_reason == "stop"
        return [self._prediction(*made) for made in zip(self.traces, self.prompts, ids, stopped, strict=True)]

    def _prediction(self, trace: Trace, prompt: Int32, pieces: list[Int32], stopped: bool) -> Prediction:
        ids = np.concatenate(pieces).tolist()
        completion = self.reader.tokenizer.decode(ids)
        parsed = self.reader.formatter.parse(completion)
        return Prediction(
            id=trace.id,
            sample=0,
            prompt=trace.prompt,
            reference=trace.final_answer,
            completion=completion,
            steps=parsed.steps,
            answer=parsed.answer if stopped else None,
            finish_reason="stop" if stopped else "length",
            error=None,
            num_prompt_tokens=len(prompt),
            num_new_tokens=len(ids),
            logprobs=(),
        )
