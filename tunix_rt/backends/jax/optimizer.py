"""AdamW as the config declares it: what decays, how gradients become an update, moments.

In: parameters and gradients of the same structure (see `decoder`). The learning rate comes with each call.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tunix_rt.backends.jax.adapter import LoraLayout
from tunix_rt.backends.jax.decoder import Params
from tunix_rt.backends.jax.weights import WeightMapping
from tunix_rt.backends.storage import Moments
from tunix_rt.config.training import OptimizerConfig
from tunix_rt.models.families.architecture import kind_of


def compiled(config: OptimizerConfig) -> OptimizerConfig:
    """What of the config is compiled into the step: not the peak rate, so that sweeps over it share the program."""
    return replace(config, learning_rate=1.0)


def adam(rule: OptimizerConfig) -> optax.GradientTransformation:
    """Bias-corrected moments; eps is added to the square root of the corrected second moment."""
    return optax.scale_by_adam(rule.beta1, rule.beta2, rule.eps)


def update(
    rule: OptimizerConfig,
    params: Params,
    gradients: Params,
    moments: optax.OptState,
    norm: jax.Array,
    learning_rate: jax.Array,
    clip_norm: jax.Array,
) -> tuple[Params, optax.OptState]:
    """Clip by global norm, then AdamW with decoupled decay (arXiv 1711.05101).

    `norm`: that of all gradients, on every device; a longer one is scaled to `clip_norm`.
    """
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
    return jax.tree.map(lambda weight, direction: weight - learning_rate * direction, params, directions), moments


def adam_state(moments: Moments, names: WeightMapping | LoraLayout) -> optax.ScaleByAdamState:
    """Stored moments as optax holds them, on the host."""
    first, second = (names.from_files(one) for one in (moments.first, moments.second))
    return optax.ScaleByAdamState(np.asarray(moments.count, np.int32), first, second)
