"""Adafactor (Shazeer & Stern 2018, arXiv 1804.04235, algorithms 4 and 5), without its relative step and first moment.

As `transformers.Adafactor` with `relative_step=False`; decay is that of AdamW, as in `torch.optim.Adafactor`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunix_rt.backends.optimizers.rule import Array, Framework, Trained
from tunix_rt.config.optimizers import AdafactorConfig
from tunix_rt.models.tensor_file import Specs

LEAST_SCALE = 1e-3
"""Least root mean square of a tensor, so that one of zeros learns too."""


@dataclass(frozen=True, slots=True)
class Adafactor:
    """Of a matrix moving means of its squared gradients over columns and rows; of a vector all of them."""

    config: AdafactorConfig

    def kept(self, tensor: Trained) -> Specs:
        if not tensor.is_matrix:
            return {"v": ("float32", tensor.shape)}
        rows, columns = tensor.shape
        return {"rows": ("float32", (rows,)), "columns": ("float32", (columns,))}

    def direction(
        self, on: Framework, tensor: Trained, weight: Array, gradient: Array, kept: Mapping[str, Array], count: Array
    ) -> tuple[Array, Mapping[str, Array]]:
        share = count**-self.config.decay_rate  # of this gradient in the moving mean
        squares = gradient * gradient + self.config.eps
        means = {"v": squares}
        if tensor.is_matrix:
            means = {"rows": squares.mean(axis=-1), "columns": squares.mean(axis=-2)}
        now = {name: kept[name] + share * (mean - kept[name]) for name, mean in means.items()}
        update = gradient / on.np.sqrt(_second_moment(now))
        axes = tuple(range(-len(tensor.shape), 0))
        excess = on.np.clip(_rms(on, update, axes) / self.config.clip_threshold, 1.0)
        scale = on.np.clip(_rms(on, weight, axes), LEAST_SCALE) if self.config.scale_parameter else 1.0
        return update * (scale / excess), now


def _second_moment(kept: Mapping[str, Array]) -> Array:
    """Of a matrix the product of both means, over the mean of all."""
    if "v" in kept:
        return kept["v"]
    rows = kept["rows"] / kept["rows"].mean(axis=-1, keepdims=True)
    return rows[..., :, None] * kept["columns"][..., None, :]


def _rms(on: Framework, x: Array, axes: tuple[int, ...]) -> Array:
    return on.np.sqrt((x * x).mean(axis=axes, keepdims=True))
