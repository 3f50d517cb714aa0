"""The model that the trained one is compared with: the one that training began with, or a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tunix_rt.backends.interface import Backend, State
from tunix_rt.batches.batch import Batch


@dataclass(frozen=True, slots=True)
class FrozenModel:
    """A model that stays as it is."""

    backend: Backend
    state: State | None
    """Loaded once; None: the trained model without its adapter."""

    def logprobs(self, trained: State, batch: Batch) -> np.ndarray[Any, Any]:
        """float32 [R, T]; `trained`: the model that is trained, at any step."""
        if self.state is None:
            measured = self.backend.logprobs(trained, batch, adapter=False)
        else:
            measured = self.backend.logprobs(self.state, batch)
        return self.backend.fetch(measured)["logprobs"]
