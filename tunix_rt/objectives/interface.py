"""What an objective is: a section of the config, and a function of log-probabilities.

To add one: a module here with a section (its `kind` is the module's name) that derives from `Objective`,
`OBJECTIVE = ThatClass`, and `conf/objective/NAME.yaml`. It serves every backend: the backends compute log-probabilities
and train on weights, and what lies between is numpy. Legend: N trained tokens, S sequences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

Float64 = np.ndarray[Any, np.dtype[np.float64]]
Int64 = np.ndarray[Any, np.dtype[np.int64]]
Bool = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one update that the model wrote, or should write: flat, sequence by sequence, end tokens included.

    Of pairs, sequence 2 i is the chosen one and 2 i + 1 the rejected one.
    """

    logprobs: Float64
    """[N] of each token under the model that is trained."""
    sequence: Int64
    """[N] from 0 to S - 1, never decreasing."""
    num_sequences: int
    """S"""
    reference: Float64 | None = None
    """[N] under the model that training began with, or the teacher."""
    old: Float64 | None = None
    """[N] under the model that sampled them."""
    advantages: Float64 | None = None
    """[S]"""
    truncated: Bool | None = None
    """[S] whether the sequence was cut at the token limit."""

    def sums(self, values: Float64) -> Float64:
        """Sum over the tokens of each sequence: [N] → [S]."""
        found: Float64 = np.bincount(self.sequence, values, self.num_sequences).astype(np.float64)
        return found

    @property
    def lengths(self) -> Float64:
        """Number of tokens of each sequence [S]."""
        return self.sums(np.ones(len(self.sequence)))


@dataclass(frozen=True, slots=True)
class Value:
    """An objective's value, and its slope: what the model is trained with."""

    loss: float
    weights: Float64
    """[N] -∂loss/∂logprobs: a sum of weight * log-probability rises as the loss falls."""
    metrics: Mapping[str, float] = field(default_factory=dict)


class Objective:
    """What training makes small."""

    __slots__ = ()
    kind: str
    data: ClassVar[Literal["traces", "pairs", "rollouts"]]
    """What it learns from: completed traces, pairs of a better and a worse completion, the model's own answers."""

    @property
    def needs_logprobs(self) -> bool:
        """Whether the trained model's log-probabilities are needed before an update: one forward pass more."""
        return False

    @property
    def needs_reference(self) -> bool:
        """Whether log-probabilities under a reference model are needed."""
        return False

    def value(self, tokens: Tokens) -> Value:
        """The objective and its slope at these log-probabilities: unless it is another's, the mean over all tokens."""
        number = max(len(tokens.logprobs), 1)
        return Value(-float(tokens.logprobs.sum()) / number, np.full(len(tokens.logprobs), 1 / number))
