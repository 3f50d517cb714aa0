"""Answering prompts with Tunix's `Sampler`: each batch is decoded to its end and yields one piece per prompt.

Tunix's Sampler takes strings and one seed for a whole batch. Here it gets ids, padded with a number that is no token;
greedy prompts run in batches, sampled ones one by one, each with its own seed, so that an answer depends only on its
prompt and seed. Its log-probabilities are those at the sampling temperature, so sampled ones are scored by the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tunix.generate.sampler import Sampler

from tunix_rt.backends.interface import FinishReason, Piece
from tunix_rt.backends.tunix import step
from tunix_rt.batches.batch import Batch
from tunix_rt.batches.encoded import Int32
from tunix_rt.config.results import GenerationConfig
from tunix_rt.models.folder import Float32

PADDING, NOTHING = -1, -2
"""Ids that no token has: Tunix masks every token equal to the padding, and stops at the tokenizer's end token."""


class Ids:
    """The tokenizer that the Sampler asks for, for prompts that are ids already: no text, no begin token."""

    def encode(self, prompt: Int32) -> list[int]:
        return [int(token) for token in prompt]

    def decode(self, ids: list[int]) -> str:
        return ""

    def bos_id(self) -> None:
        return None

    def eos_id(self) -> int:
        return NOTHING

    def pad_id(self) -> int:
        return PADDING


@dataclass(frozen=True, slots=True)
class Limits:
    """What ends a completion."""

    stop_ids: tuple[int, ...]
    max_positions: int
    max_new_tokens: int

    def room(self, prompt: Int32) -> int:
        """New tokens that a prompt may get."""
        return min(self.max_new_tokens, self.max_positions - len(prompt))

    @property
    def only_stop_id(self) -> int | None:
        """The stop token, if there is one alone: the Sampler does not tell which of several it met."""
        return self.stop_ids[0] if len(self.stop_ids) == 1 else None


def slots_of(prompts: Sequence[Int32]) -> int:
    """The longest prompt, rounded up so that few programs are compiled."""
    return -(-max(map(len, prompts), default=0) // 16) * 16


def generate(
    sampler: Sampler,
    model: Any,
    limits: Limits,
    prompts: Sequence[Int32],
    generation: GenerationConfig,
    seeds: Sequence[int],
) -> Iterator[Piece]:
    """Answer prompts, those of similar length together; see `Backend.generate`."""
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    for index in order:
        if limits.room(prompts[index]) < 1:
            yield Piece(index, np.zeros(0, np.int32), np.zeros(0, np.float32), "length")
    order = [index for index in order if limits.room(prompts[index]) >= 1]
    size = generation.batch_size if generation.temperature == 0 else 1
    for first in range(0, len(order), size):
        indices = order[first : first + size]
        asked = [prompts[index] for index in indices]
        answers = _answer(sampler, limits, asked, generation, seeds[indices[0]], size)
        for index, (ids, logprobs) in zip(indices, answers, strict=True):
            yield _piece(index, prompts[index], ids, logprobs, limits, None if generation.temperature == 0 else model)


def _answer(
    sampler: Sampler,
    limits: Limits,
    prompts: Sequence[Int32],
    generation: GenerationConfig,
    seed: int,
    batch_size: int,
) -> Iterator[tuple[Int32, Float32]]:
    """The Sampler's completion of each prompt, up to a stop token; repeated prompts fill the remaining rows."""
    rows = min(1 << (len(prompts) - 1).bit_length(), batch_size)
    sampled = generation.temperature > 0
    made = sampler(
        [*prompts, *[prompts[0]] * (rows - len(prompts))],
        max_generation_steps=max(limits.room(prompt) for prompt in prompts),
        max_prompt_length=slots_of(prompts),
        return_logprobs=True,
        eos_tokens=limits.stop_ids,
        temperature=generation.temperature,
        top_p=(1.0 if generation.top_p is None else generation.top_p) if sampled else None,  # None: greedy
        top_k=generation.top_k,
        seed=np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32),
    )
    for ids, logprobs in zip(made.tokens[: len(prompts)], made.logprobs, strict=False):
        yield np.asarray(ids, np.int32), np.asarray(logprobs, np.float32)


def _piece(index: int, prompt: Int32, ids: Int32, logprobs: Float32, limits: Limits, model: Any) -> Piece:
    """The Sampler omits the stop token, so fewer ids than `room` mean a stop. `model`, if given, scores the ids."""
    room = limits.room(prompt)
    stop_id = limits.only_stop_id if len(ids) < room else None
    reason: FinishReason = "length" if len(ids) >= room else "stop"
    ids = ids[:room]
    if model is None:
        return Piece(index, ids, logprobs[:room], reason, stop_id)
    scored = _scored(model, prompt, ids if stop_id is None else np.append(ids, np.int32(stop_id)))
    return Piece(index, ids, scored[: len(ids)], reason, stop_id, None if stop_id is None else float(scored[-1]))


def _scored(model: Any, prompt: Int32, ids: Int32) -> Float32:
    """Log-probabilities float32 [n] of `ids` after `prompt`, at temperature 1, in one pass."""
    length = slots_of([prompt]) + slots_of([ids]) if len(ids) else 0
    if length == 0:
        return np.zeros(0, np.float32)
    tokens, targets, segments = (np.zeros((1, 1, length), np.int32) for _ in range(3))
    sequence = np.concatenate([prompt, ids])
    first, last = len(prompt) - 1, len(sequence) - 1
    tokens[0, 0, :last], targets[0, 0, :last], segments[0, 0, :last] = sequence[:-1], sequence[1:], 1
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)
    weights = np.zeros(tokens.shape, np.float32)
    weights[0, 0, first:last] = 1
    found = step.score(model, step.inputs(Batch.supervised(tokens, targets, positions, segments, weights)))["logprobs"]
    return np.asarray(found)[0, 0, first:last]
