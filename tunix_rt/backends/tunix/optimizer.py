"""AdamW as the config declares it, applied by Tunix's trainer; its moments by weight name.

Tunix's trainer takes any optax transformation. Ours keeps the learning rate in its state, and `set_rate` sets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from tunix_rt.backends.storage import Moments
from tunix_rt.backends.tunix.decoder import arrays_of, assign
from tunix_rt.backends.tunix.weights import Path as Parameter
from tunix_rt.backends.tunix.weights import WeightMapping
from tunix_rt.config.optimizers import AdamWConfig

Optimizer = nnx.Optimizer[nnx.Module]


def adamw(config: AdamWConfig, clip_norm: float | None, kinds: Mapping[Parameter, str]) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW (arXiv 1711.05101); nothing changes if the gradient is not finite.

    `kinds` maps each parameter to its `no_decay` kind.
    """

    def is_decayed(path: tuple[Any, ...], _: Any) -> bool:
        names = tuple(key.key for key in path if isinstance(key, jax.tree_util.DictKey))
        return kinds[names] not in config.no_decay

    def decayed(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(is_decayed, params)

    def rule(learning_rate: Any) -> optax.GradientTransformation:
        clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
        update = optax.adamw(
            learning_rate, config.beta1, config.beta2, config.eps, weight_decay=config.weight_decay, mask=decayed
        )
        return _where_finite(optax.chain(clip, update))

    return optax.inject_hyperparams(rule)(learning_rate=0.0)


def _where_finite(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        finite = jnp.isfinite(optax.tree.norm(gradients))
        updates, after = inner.update(gradients, state, params)
        updates = jax.tree.map(lambda value: jnp.where(finite, value, 0), updates)
        return updates, jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state)

    return optax.GradientTransformation(inner.init, update)


def set_rate(optimizer: Optimizer, learning_rate: float, device: jax.Device) -> None:
    """Set the learning rate of the next update."""
    optimizer.opt_state.hyperparams["learning_rate"].set_value(jax.device_put(np.float32(learning_rate), device))


def _adam(optimizer: Optimizer) -> optax.ScaleByAdamState:
    found: optax.ScaleByAdamState = optax.tree_utils.tree_get(optimizer.opt_state, "ScaleByAdamState")
    return found


def moments_of(optimizer: Optimizer, layout: WeightMapping) -> Moments:
    """Host copies of the moments, by weight name."""
    adam = _adam(optimizer)
    first, second = (layout.to_files(arrays_of(moments)) for moments in (adam.mu, adam.nu))
    return Moments({"m": first, "v": second}, int(adam.count.get_value()))


def set_moments(optimizer: Optimizer, moments: Moments, layout: WeightMapping, device: jax.Device) -> None:
    """The inverse, in place."""
    adam = _adam(optimizer)
    assign(adam.mu, layout.from_files(moments.kept["m"]), device)
    assign(adam.nu, layout.from_files(moments.kept["v"]), device)
    adam.count.set_value(jax.device_put(np.asarray(moments.count, np.int32), device))
