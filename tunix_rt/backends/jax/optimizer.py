"""AdamW as the config declares it: what decays, how gradients become an update, moments by weight name.

In: parameters and gradients of the same structure (see `decoder`). The learning rate comes with each call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tunix_rt.backends.jax.decoder import Params
from tunix_rt.backends.jax.weights import WeightMapping
from tunix_rt.config.training import OptimizerConfig
from tunix_rt.models.families.architecture import kind_of


@dataclass(frozen=True, slots=True)
class UpdateRule:
    """The parts of the training setup that are compiled into the step: sweeps over the rest share the program."""

    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    no_decay: tuple[str, ...]

    @classmethod
    def of(cls, config: OptimizerConfig) -> UpdateRule:
        """The rule that `config` declares."""
        return cls(config.beta1, config.beta2, config.eps, config.weight_decay, config.no_decay)


def adam(rule: UpdateRule) -> optax.GradientTransformation:
    """Bias-corrected moments; eps is added to the square root of the corrected second moment."""
    return optax.scale_by_adam(rule.beta1, rule.beta2, rule.eps)


def update(
    rule: UpdateRule,
    params: Params,
    gradients: Params,
    moments: optax.OptState,
    learning_rate: jax.Array,
    clip_norm: jax.Array,
) -> tuple[Params, optax.OptState, jax.Array]:
    """Clip by global norm, then AdamW with decoupled decay (arXiv 1711.05101).

    Returns (params, moments, gradient norm before clipping). A longer gradient is scaled to `clip_norm`.
    """
    norm = optax.tree.norm(gradients)
    scale = 1 / jnp.maximum(norm / clip_norm, 1.0)
    gradients = jax.tree.map(lambda gradient: gradient * scale, gradients)
    directions, moments = adam(rule).update(gradients, moments)
    if rule.weight_decay > 0:
        directions = jax.tree_util.tree_map_with_path(
            lambda path, direction, weight: (
                direction if kind_of(path[-1].key) in rule.no_decay else direction + rule.weight_decay * weight
            ),
            directions,
            params,
        )
    return (
        jax.tree.map(lambda weight, direction: weight - learning_rate * direction, params, directions),
        moments,
        norm,
    )


def moments_from_tensors(tensors: Mapping[str, np.ndarray[Any, Any]], names: WeightMapping) -> optax.ScaleByAdamState:
    """`m.<weight>`, `v.<weight>` and `count`, as any backend stored them → moments, on the host."""
    first, second = (names.from_files({name: tensors[f"{kind}.{name}"] for name in names.shapes}) for kind in "mv")
    return optax.ScaleByAdamState(count=np.asarray(tensors["count"], np.int32), mu=first, nu=second)
