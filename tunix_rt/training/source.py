"""Where the batches of training come from: a function of the step alone, or of what the model says at that step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tunix_rt.backends.interface import State
from tunix_rt.batches.batch import Batch, BatchOrder


@dataclass(frozen=True, slots=True)
class Update:
    """What one step is done with."""

    batch: Batch
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Logged with the step. A `train/loss` among them is the objective's value, and stands in the place of the batch's
    own quotient."""


class BatchSource(Protocol):
    """The updates of training, steps counted from 1. The same step and state give the same update."""

    @property
    def fetched_ahead(self) -> bool:
        """Whether `batch` ignores the state: then the next update is made while the device works on this one."""

    def batch(self, step: int, state: State) -> Update:
        """The update of a step, from the state before it. May raise Interrupted while it generates."""

    def ids(self, step: int) -> list[str]:
        """Ids of the traces in that update, in its order."""


@dataclass(frozen=True, slots=True)
class SupervisedSource:
    """Traces in the order of (seed, step)."""

    order: BatchOrder
    fetched_ahead: bool = True

    def batch(self, step: int, state: State) -> Update:
        return Update(self.order.batch_at(step - 1))

    def ids(self, step: int) -> list[str]:
        return self.order.ids_at(step - 1)
