"""Lion (Chen et al. 2023, arXiv 2302.06675, algorithm 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunix_rt.backends.optimizers.rule import Array, Framework, Trained
from tunix_rt.config.optimizers import LionConfig
from tunix_rt.models.tensor_file import Specs


@dataclass(frozen=True, slots=True)
class Lion:
    """The sign of a mean of gradient and moving average; then the average moves on, by another decay."""

    config: LionConfig

    def kept(self, tensor: Trained) -> Specs:
        return {"m": ("float32", tensor.shape)}

    def direction(
        self, on: Framework, tensor: Trained, weight: Array, gradient: Array, kept: Mapping[str, Array], count: Array
    ) -> tuple[Array, Mapping[str, Array]]:
        beta1, beta2, average = self.config.beta1, self.config.beta2, kept["m"]
        direction = on.np.sign(beta1 * average + (1 - beta1) * gradient)
        return direction, {"m": beta2 * average + (1 - beta2) * gradient}
