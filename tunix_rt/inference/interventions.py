"""Faithfulness by intervention: the steps of answered prompts are cut off or made wrong, and the model goes on.

Lanham et al. 2023, arXiv 2307.13702, section 2: early answering, adding mistakes, filler tokens. The question is
whether the answer follows from the steps, or is known before them. What is changed depends on (seed, prompt's id, k)
alone, and what the model writes then on (seed, prompt's id, kind, k).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from tunix_rt.backends.interface import Backend, State
from tunix_rt.batches.encoded import Int32
from tunix_rt.batches.reader import Question, Reader
from tunix_rt.config.results import GenerationConfig, InterventionConfig, InterventionKind
from tunix_rt.files import write_jsonl
from tunix_rt.inference.loop import answer_all
from tunix_rt.runs.interrupt import Interrupt
from tunix_rt.terminal import warn
from tunix_rt.traces.corrupt import Corruption, corrupted, numbers_in
from tunix_rt.traces.cuts import Cuts
from tunix_rt.traces.intervention import Intervention, intervention_of
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.trace import Trace


@dataclass(frozen=True, slots=True)
class Changed:
    """A prompt with a completion that was begun and changed: what the model goes on from."""

    question: Question
    kind: InterventionKind
    k: int
    num_steps: int
    given: str
    corruption: Corruption | None
    ids: Int32
    """Prompt and given text."""
    problem: str | None
    """Why the model cannot be asked to go on; None if it can."""

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from others."""
        return self.question.trace.id, self.kind, self.k

    def failed(self, reason: str) -> Intervention:
        """The record of one that got no answer."""
        return self._record(self.question.failed(reason))

    def answered(
        self, reader: Reader, ids: Int32, logprobs: Iterable[float], finish_reason: Literal["stop", "length"]
    ) -> Intervention:
        """The record of what the model went on with: the tokens `ids`."""
        begun = self.ids[len(self.question.ids) :]
        whole = self.question.answered(reader, np.concatenate([begun, ids]), (), finish_reason)
        return self._record(replace(whole, num_prompt_tokens=len(self.ids), num_new_tokens=len(ids), token_ends=()))

    def _record(self, prediction: Prediction) -> Intervention:
        original, replacement = (None, None)
        if self.corruption is not None:
            original, replacement = self.corruption.original, self.corruption.replacement
        return Intervention(self.kind, self.k, self.num_steps, self.given, original, replacement, prediction)


def intervene(
    backend: Backend,
    state: State,
    reader: Reader,
    traces: Sequence[Trace],
    predictions: Iterable[Prediction],
    generation: GenerationConfig,
    seed: int,
    path: Path,
    interrupt: Interrupt,
) -> None:
    """Change the steps of the first answered prompts and let the model go on, one line in `path` for each change.

    `predictions`: what the model answered to the traces; the order is theirs. Warns if none has steps and an answer;
    the file is then empty. Raises what `answer_all` raises.
    """
    config = generation.interventions
    assert config is not None
    by_id = {trace.id: trace for trace in traces}
    answered = ((p, cuts) for p in predictions if p.sample == 0 and (cuts := _cuts(reader, p)) is not None)
    changed = [
        change
        for prediction, cuts in islice(answered, config.num_prompts)
        for change in _changes(reader, reader.question(by_id[prediction.id]), cuts, config, seed)
    ]
    if not changed:
        warn("generation.interventions: no completion has steps and then an answer in the format; nothing is changed")
        write_jsonl(path, ())
        return
    answer_all(backend, state, reader, changed, intervention_of, generation, seed, path, interrupt, "interventions")


def _cuts(reader: Reader, prediction: Prediction) -> Cuts | None:
    """Where a prediction can be cut, if it ended by itself with an answer."""
    return None if prediction.answer is None else reader.formatter.cuts(prediction.completion)


def _changes(
    reader: Reader, question: Question, cuts: Cuts, config: InterventionConfig, seed: int
) -> Iterator[Changed]:
    """Every change of one completion."""
    known = numbers_in(question.prompt) | numbers_in(cuts.text)
    for kind in config.kinds:
        for k in range(len(cuts.asking) - (kind == "corrupted")):
            corruption = _corruption(question, cuts, k, seed, known) if kind == "corrupted" else None
            if kind == "corrupted" and corruption is None:
                continue  # no number; evaluation counts those that are missing
            given, follows = cuts.asking[k], len(cuts.asking[-1])
            if corruption is not None:
                given, follows = (
                    cuts.replaced(k, corruption.text),
                    [*(start for start, _ in cuts.steps), follows][k + 1],
                )
            elif kind == "filler":
                given = cuts.filled(k, config.filler)
            ids, begun, problem = _encoded(reader, question, given, cuts.text[follows])
            yield Changed(question, kind, k, len(cuts.steps), begun, corruption, ids, problem)


def _corruption(question: Question, cuts: Cuts, k: int, seed: int, known: set[Decimal]) -> Corruption | None:
    start, end = cuts.steps[k]
    return corrupted(cuts.text[start:end], f"{seed}:corrupted:{question.trace.id}:{k}", known)


def _encoded(reader: Reader, question: Question, given: str, following: str) -> tuple[Int32, str, str | None]:
    """Token ids of the prompt and the given text, that text, and why they cannot be asked.

    The text is tokenised with the character that the model itself wrote there behind it, and a token that holds that
    character too is left to the model: `####` and ` 42` are tokens, and a space alone is one that it never saw there.
    """
    tokenizer, text = reader.tokenizer, question.prompt + given
    if unknown := tokenizer.unknown(given + following):
        return question.ids, given, f"not in the vocabulary: {''.join(sorted(unknown))!r}"
    encoding = tokenizer.encode(text + following)
    kept = [(token, end) for token, (_, end) in zip(encoding.ids, encoding.offsets, strict=True) if end <= len(text)]
    ids = np.array([token for token, _ in kept], np.int32)
    begun = text[len(question.prompt) : max(kept[-1][1], len(question.prompt))]
    problem = None
    if ids[: len(question.ids)].tolist() != question.ids.tolist():
        problem = "prompt and completion become tokens together"
    elif len(ids) >= reader.max_positions:
        problem = f"{len(ids)} tokens are given, the model has {reader.max_positions} positions"
    return ids, begun, problem
