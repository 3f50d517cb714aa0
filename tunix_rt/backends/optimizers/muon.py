"""Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon/), for matrices of layers and adapters; AdamW otherwise.

As `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, but in float32, so that backends agree (there the iteration
is in bfloat16). Each tensor of the model folder is one matrix: an expert's, or GPT-2's queries, keys and values
together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tunix_rt.backends.optimizers.adam import Adam
from tunix_rt.backends.optimizers.rule import Array, Framework, Trained
from tunix_rt.config.optimizers import MuonConfig
from tunix_rt.models.tensor_file import Specs

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration: singular values get near 1, within 0.7 and 1.2, in few steps."""
EPS = 1e-7
"""Least norm of a matrix that is divided by."""
RMS_OF_ADAMW = 0.2
"""Root mean square of AdamW's updates, to which those of matrices are scaled (arXiv 2502.16982, 2.2)."""


@dataclass(frozen=True, slots=True)
class Muon:
    """Of a matrix the momentum, orthogonalised; of other tensors AdamW's moments."""

    config: MuonConfig

    def kept(self, tensor: Trained) -> Specs:
        return {"m": ("float32", tensor.shape)} if _is_hidden(tensor) else self._adam.kept(tensor)

    def direction(
        self, on: Framework, tensor: Trained, weight: Array, gradient: Array, kept: Mapping[str, Array], count: Array
    ) -> tuple[Array, Mapping[str, Array]]:
        if not _is_hidden(tensor):
            return self._adam.direction(on, tensor, weight, gradient, kept, count)
        decay = self.config.momentum
        momentum = decay * kept["m"] + (1 - decay) * gradient
        nesterov = decay * momentum + (1 - decay) * gradient
        scale = RMS_OF_ADAMW * math.sqrt(max(tensor.shape))
        return scale * orthogonalised(on, nesterov, self.config.newton_schulz_steps), {"m": momentum}

    @property
    def _adam(self) -> Adam:
        return Adam(self.config.beta1, self.config.beta2, self.config.eps)


def _is_hidden(tensor: Trained) -> bool:
    return tensor.inside and tensor.is_matrix


def orthogonalised(on: Framework, matrix: Array, steps: int) -> Array:
    """Matrices [..., rows, columns] with the same singular vectors, and all singular values near 1."""
    rows, columns = matrix.shape[-2:]
    x = matrix.mT if rows > columns else matrix
    x = x / on.np.clip(on.np.sqrt((x * x).sum(axis=(-2, -1), keepdims=True)), EPS)
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if rows > columns else x
