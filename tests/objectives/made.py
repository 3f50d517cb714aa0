"""Log-probabilities of random answers, padded for the formulas and flat for the objectives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from tests.conftest import config_of
from tunix_rt.objectives.interface import Float64, Tokens

PAIRS = ("dataset=files", "dataset.name=pairs", "dataset.source.train.path=pairs.jsonl")
declared = cache(lambda name: config_of([f"objective={name}", *PRETRAINED, *TEACHER.get(name, ())]).objective)
"""The objective of `conf/objective/<name>.yaml`."""
PRETRAINED = ("model=smollm2_135m", "tokenizer=pretrained", "generation.max_new_tokens=9", *PAIRS)
"""A model that can answer, and data of any kind."""
TEACHER = {"distill": ["objective.teacher={kind: folder, path: teacher}"]}


def objective(name: str, **values: Any) -> Any:
    """The same with some values changed."""
    return replace(declared(name), **values)


@dataclass(frozen=True, slots=True)
class Padded:
    """Answers [B, T] under three models."""

    logprobs: Float64
    reference: Float64
    old: Float64
    mask: Any
    advantages: Float64

    @property
    def sampled(self) -> Tokens:
        """The same without padding, as answers that were sampled."""
        return replace(self.pairs, old=self.old[self.mask], advantages=self.advantages)

    @property
    def pairs(self) -> Tokens:
        """The same without padding, as pairs."""
        rows = np.nonzero(self.mask)[0]
        return Tokens(self.logprobs[self.mask], rows, len(self.mask), self.reference[self.mask])


def padded(sequences: int = 8, seed: int = 0) -> Padded:
    """Answers of 1 to 7 tokens; a few ratios are beyond the usual clips, on both sides of 1."""
    random = np.random.default_rng(seed)
    logprobs = -random.exponential(1.0, (sequences, 7)) - 0.01
    reference = logprobs + random.normal(0.0, 0.5, logprobs.shape)
    old = logprobs + random.normal(0.0, 0.3, logprobs.shape)
    lengths = random.permutation(np.arange(sequences) % 7 + 1)
    return Padded(logprobs, reference, old, np.arange(7) < lengths[:, None], random.normal(0.0, 1.0, sequences))
