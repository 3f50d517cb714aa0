"""Samples during training: greedy answers to a few prompts, their accuracy, and some of them printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tunix_rt.backends.interface import Backend, State
from tunix_rt.batches.encoded import Int32
from tunix_rt.batches.reader import Question, Reader
from tunix_rt.config.format import FormatConfig
from tunix_rt.config.results import GenerationConfig
from tunix_rt.files import append_line
from tunix_rt.terminal import say
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.trace import Trace

NUM_PRINTED = 2
Verdict = Callable[[Prediction, Trace], bool | None]
"""Whether an answer to a trace's prompt is right, by the rules of evaluation; None if it has no reference."""
WORDS = {True: "right", False: "wrong", None: "no reference"}


@dataclass(frozen=True, slots=True)
class Sampler:
    """Greedy generation for fixed prompts."""

    reader: Reader
    questions: tuple[Question, ...]
    generation: GenerationConfig

    @classmethod
    def of(
        cls, model_folder: Path, format: FormatConfig, traces: Sequence[Trace], max_new_tokens: int | None = None
    ) -> Sampler:
        """Encode the prompts, without those that cannot be asked.

        Answers have at most `max_new_tokens`; None: 1.5 times the longest reference completion.
        """
        reader = Reader.of(model_folder, format)
        questions = tuple(question for question in map(reader.question, traces) if question.problem is None)
        generation = GenerationConfig(
            split="validation",
            max_new_tokens=max_new_tokens or _longest(reader, questions) * 3 // 2 + 1,
            temperature=0.0,
            top_k=None,
            top_p=None,
            num_return_sequences=1,
            batch_size=max(len(questions), 1),
            baseline=False,
            max_error_rate=1.0,
        )
        return cls(reader, questions, generation)

    def answers(self, engine: Backend, state: State, ask: Callable[[], None] = lambda: None) -> list[Prediction]:
        """The answer to each prompt. `ask` is called for every generated piece, and may raise Interrupted."""
        ids: list[list[Int32]] = [[] for _ in self.questions]
        stopped = [False] * len(self.questions)
        prompts = [question.ids for question in self.questions]
        for piece in engine.generate(state, prompts, self.generation, [0] * len(prompts)):
            ask()
            ids[piece.index].append(piece.ids)
            stopped[piece.index] = piece.finish_reason == "stop"
        return [
            question.answered(self.reader, np.concatenate(made), (), "stop" if whole else "length")
            for question, made, whole in zip(self.questions, ids, stopped, strict=True)
        ]

    def accuracy(self, answers: Sequence[Prediction], step: int, is_right: Verdict, file: Path | None = None) -> float:
        """Share of the answers that are right, of those with a reference; prints a few, appends all to `file`."""
        verdicts = []
        for number, (question, answer) in enumerate(zip(self.questions, answers, strict=True)):
            right = is_right(answer, question.trace)
            verdicts.append(right)
            if file is not None:
                shown = {"id": answer.id, "prompt": answer.prompt, "completion": answer.completion}
                append_line(file, {"step": step, **shown, "reference": answer.reference, "correct": right})
            if number < NUM_PRINTED:
                said = f"{question.trace.prompt!r} → {answer.completion!r}"
                say(f"  step {step} {WORDS[right]}: {said}")
        return verdicts.count(True) / max(len(verdicts) - verdicts.count(None), 1)


def _longest(reader: Reader, questions: Sequence[Question]) -> int:
    """Tokens of the longest reference completion."""
    texts = ["".join(part.text for part in reader.formatter.parts(q.trace, "keep")) for q in questions]
    lengths = [len(reader.tokenizer.ids(text)) - len(q.ids) for text, q in zip(texts, questions, strict=True)]
    return max(lengths, default=1)
