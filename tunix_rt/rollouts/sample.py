"""The model's own answers, as tokens that can be learned: the stop token is one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tunix_rt.backends.interface import Backend, Piece, State
from tunix_rt.batches.encoded import Int32
from tunix_rt.batches.reader import Question, Reader
from tunix_rt.config.results import GenerationConfig
from tunix_rt.errors import ModelError
from tunix_rt.models.folder import Float32
from tunix_rt.traces.prediction import Prediction


@dataclass(frozen=True, slots=True)
class Sampled:
    """One answer."""

    prediction: Prediction
    """Without the stop token, and without its single tokens."""
    ids: Int32
    """[n] every sampled token, n ≥ 1."""
    logprobs: Float32
    """[n] of each, by the sampler."""


def decoding(max_new_tokens: int, samples: int, batch_size: int) -> GenerationConfig:
    """How rollouts are sampled, always: from the model's whole distribution at temperature 1.

    Otherwise the log-probabilities of training would not be those of what was sampled.
    """
    return GenerationConfig(
        split="validation",
        max_new_tokens=max_new_tokens,
        temperature=1.0,
        top_k=None,
        top_p=None,
        num_return_sequences=samples,
        batch_size=batch_size,
        baseline=False,
        max_error_rate=0.0,
    )


def sample(
    backend: Backend,
    state: State,
    reader: Reader,
    questions: Sequence[Question],
    generation: GenerationConfig,
    seeds: Sequence[int],
    ask: Callable[[], None],
) -> list[Sampled]:
    """One answer per question and seed, in their order. `ask` is called for every piece, and may raise Interrupted.

    Raises ModelError if the backend does not say which token ended an answer, and what `generate` raises.
    """
    made: list[list[Piece]] = [[] for _ in questions]
    for piece in backend.generate(state, [question.ids for question in questions], generation, seeds):
        ask()
        made[piece.index].append(piece)
    return [_joined(reader, question, pieces) for question, pieces in zip(questions, made, strict=True)]


def _joined(reader: Reader, question: Question, pieces: Sequence[Piece]) -> Sampled:
    ids, logprobs = (np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("ids", "logprobs"))
    last = pieces[-1]
    assert last.finish_reason is not None
    prediction = question.said(reader, ids, last.finish_reason)
    if last.finish_reason == "length":
        return Sampled(prediction, ids, logprobs)
    if last.stop_id is None or last.stop_logprob is None:
        raise ModelError("this backend does not say which token ended an answer, so a model would never learn to stop")
    ids, logprobs = np.append(ids, np.int32(last.stop_id)), np.append(logprobs, np.float32(last.stop_logprob))
    return Sampled(prediction, ids, logprobs)
