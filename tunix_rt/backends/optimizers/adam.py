"""AdamW (arXiv 1711.05101): its moments, and its update where another rule uses it for some tensors.

As an optimizer of its own it is computed by torch's fused kernel, and by optax.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tunix_rt.backends.optimizers.rule import Array, Framework, Trained
from tunix_rt.models.tensor_file import Specs


@dataclass(frozen=True, slots=True)
class Adam:
    """Bias-corrected moments; eps is added to the square root of the corrected second one."""

    beta1: float
    beta2: float
    eps: float

    def kept(self, tensor: Trained) -> Specs:
        return {"m": ("float32", tensor.shape), "v": ("float32", tensor.shape)}

    def direction(
        self, on: Framework, tensor: Trained, weight: Array, gradient: Array, kept: Mapping[str, Array], count: Array
    ) -> tuple[Array, Mapping[str, Array]]:
        first = self.beta1 * kept["m"] + (1 - self.beta1) * gradient
        second = self.beta2 * kept["v"] + (1 - self.beta2) * gradient * gradient
        size = on.np.sqrt(second / _corrected(on, self.beta2, count)) + self.eps
        return first / _corrected(on, self.beta1, count) / size, {"m": first, "v": second}


def _corrected(on: Framework, beta: float, count: Array) -> Array:
    """1 - beta^count; in this form not rounded off where beta is near to 1."""
    return 1.0 if beta == 0 else -on.np.expm1(count * math.log(beta))
