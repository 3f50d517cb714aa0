"""How gradients become an update, and what is kept for the next: AdamW by optax, all others by their rules.

In: parameters and gradients of the same structure (see `decoder`). The learning rate comes with each call. An
elementwise optimizer keeps trees like the parameters, any other arrays [N, ...] by the names of `runs`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tunix_rt.backends.jax.adapter import LoraLayout
from tunix_rt.backends.jax.decoder import Params
from tunix_rt.backends.jax.runs import Run
from tunix_rt.backends.jax.weights import WeightMapping
from tunix_rt.backends.optimizers.registry import rule_of
from tunix_rt.backends.optimizers.rule import Framework, Trained
from tunix_rt.backends.storage import Moments
from tunix_rt.config.optimizers import AdamWConfig, OptimizerConfig
from tunix_rt.models.families.architecture import kind_of

JAX = Framework(jnp, lambda array, like: jnp.asarray(array))
Runs = tuple[Run, ...]
"""Of an elementwise optimizer none."""


class Kept(NamedTuple):
    """What an optimizer keeps."""

    count: Any
    """int32 [], the number of updates."""
    trees: dict[str, Any]
    """By its kind."""


def compiled(config: OptimizerConfig) -> OptimizerConfig:
    """What of the config is compiled into the step: not the peak rate, so that sweeps over it share the program."""
    return replace(config, learning_rate=1.0)


def fresh(config: OptimizerConfig, runs: Runs, params: Params) -> Kept:
    """Zeros."""
    rule, trees = rule_of(config), dict[str, Any]()
    if config.elementwise:
        any_tensor = Trained((), "matrices", True)
        trees = {kind: jax.tree.map(jnp.zeros_like, params) for kind in rule.kept(any_tensor)}
    for run in runs:
        for kind, (dtype, shape) in rule.kept(run.tensor).items():
            trees.setdefault(kind, {})[run.key] = jnp.zeros((len(run.names), *shape), dtype)
    return Kept(jnp.zeros((), jnp.int32), trees)


def update(
    config: OptimizerConfig,
    runs: Runs,
    params: Params,
    gradients: Params,
    kept: Kept,
    norm: jax.Array,
    learning_rate: jax.Array,
    clip_norm: jax.Array,
) -> tuple[Params, Kept]:
    """Clip by global norm, then the optimizer's update with decoupled decay (arXiv 1711.05101).

    `norm`: that of all gradients, on every device; a longer one is scaled to `clip_norm`.
    """
    scale = 1 / jnp.maximum(norm / clip_norm, 1.0)
    gradients = jax.tree.map(lambda gradient: gradient * scale, gradients)
    if isinstance(config, AdamWConfig):
        return _adamw(config, params, gradients, kept, learning_rate)
    if config.elementwise:
        return _each(config, params, gradients, kept, learning_rate)
    return _by_runs(config, runs, params, gradients, kept, learning_rate)


def _adamw(
    config: AdamWConfig, params: Params, gradients: Params, kept: Kept, learning_rate: jax.Array
) -> tuple[Params, Kept]:
    """Bias-corrected moments; eps is added to the square root of the corrected second moment."""
    rule = optax.scale_by_adam(config.beta1, config.beta2, config.eps)
    before = optax.ScaleByAdamState(kept.count, kept.trees["m"], kept.trees["v"])
    directions, after = rule.update(gradients, before)
    if config.weight_decay > 0:
        directions = jax.tree_util.tree_map_with_path(
            lambda path, direction, weight: (
                direction if kind_of(path[-1].key) in config.no_decay else direction + config.weight_decay * weight
            ),
            directions,
            params,
        )
    params = jax.tree.map(lambda weight, direction: weight - learning_rate * direction, params, directions)
    return params, Kept(after.count, {"m": after.mu, "v": after.nu})


def _each(
    config: OptimizerConfig, params: Params, gradients: Params, kept: Kept, learning_rate: jax.Array
) -> tuple[Params, Kept]:
    """Of an elementwise optimizer, whose tensors may be stacked, and parts."""
    count, change = kept.count + 1, _changed(config, learning_rate)
    found: list[Any]
    structure: Any
    found, structure = jax.tree_util.tree_flatten_with_path(params)
    gradient_of = structure.flatten_up_to(gradients)
    kept_of = {kind: structure.flatten_up_to(tree) for kind, tree in kept.trees.items()}
    weights, after = [], []
    for number, (path, weight) in enumerate(found):
        tensor = Trained(weight.shape, kind_of(path[-1].key), True)
        before = {kind: arrays[number] for kind, arrays in kept_of.items()}
        new, kept_after = change(tensor, weight, gradient_of[number], before, count)
        weights.append(new)
        after.append(kept_after)
    trees = {kind: structure.unflatten([one[kind] for one in after]) for kind in kept_of}
    return structure.unflatten(weights), Kept(count, trees)


def _by_runs(
    config: OptimizerConfig, runs: Runs, params: Params, gradients: Params, kept: Kept, learning_rate: jax.Array
) -> tuple[Params, Kept]:
    """Of an optimizer that needs tensors whole."""
    count, change = kept.count + 1, _changed(config, learning_rate)
    new = jax.tree.map(lambda x: x, params)
    trees: dict[str, dict[str, Any]] = {kind: {} for kind in kept.trees}
    for run in runs:
        before = {kind: arrays[run.key] for kind, arrays in kept.trees.items() if run.key in arrays}
        values, after = change(run.tensor, run.take(params), run.take(gradients), before, count)
        run.put(new, values)
        for kind, array in after.items():
            trees[kind][run.key] = array
    return new, Kept(count, trees)


def _changed(config: OptimizerConfig, learning_rate: jax.Array) -> Callable[..., tuple[Any, dict[str, Any]]]:
    rule = rule_of(config)

    def change(tensor: Trained, weight: Any, gradient: Any, kept: Mapping[str, Any], count: Any) -> Any:
        direction, after = rule.direction(JAX, tensor, weight, gradient, kept, count.astype(jnp.float32))
        if config.weight_decay > 0 and tensor.kind not in config.no_decay:
            direction = direction + config.weight_decay * weight
        return weight - learning_rate * direction, {kind: x.astype(kept[kind].dtype) for kind, x in after.items()}

    return change


def from_files(moments: Moments, runs: Runs, names: WeightMapping | LoraLayout) -> Kept:
    """Stored moments as they are held, on the host."""
    count = np.asarray(moments.count, np.int32)
    if not runs:
        return Kept(count, {kind: names.from_files(arrays) for kind, arrays in moments.kept.items()})
    trees = {
        kind: {run.key: np.stack([arrays[name] for name in run.names]) for run in runs if run.names[0] in arrays}
        for kind, arrays in moments.kept.items()
    }
    return Kept(count, trees)


def to_files(kept: Kept, runs: Runs, names: Callable[[Params], Any]) -> Moments:
    """The inverse; `names`: what a tree like the parameters becomes."""
    if not runs:
        return Moments({kind: names(tree) for kind, tree in kept.trees.items()}, int(kept.count))
    name_of = {run.key: run.names for run in runs}
    found = {
        kind: {name: part for key, array in arrays.items() for name, part in zip(name_of[key], array, strict=True)}
        for kind, arrays in kept.trees.items()
    }
    return Moments(found, int(kept.count))
