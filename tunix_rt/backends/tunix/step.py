"""The loss that Tunix's train step computes, its trainer, and one scoring pass.

Tunix calls the loss with its model and the fields of a batch. Packed rows stay isolated by the attention mask that
the loss passes to the model. Micro-batches are summed inside the loss: Tunix's own accumulation averages averages.
Legend: A micro-batches, B rows, T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tunix.sft.peft_trainer import PeftTrainer, TrainingConfig

from tunix_rt.backends.objective import weighted_loss
from tunix_rt.batches.batch import Batch

Micro = dict[str, Any]


def inputs(batch: Batch) -> Micro:
    """The arrays of a batch by name, [A, B, T]."""
    return {name: getattr(batch, name) for name in Batch.__slots__ if name != "divisor"}


def divided(batch: Batch) -> Micro:
    """The same, with its divisor."""
    return inputs(batch) | {"divisor": np.float32(batch.divisor)}


def _logprobs(model: nnx.Module, micro: Micro) -> jax.Array:
    """Log-probabilities float32 [B, T] of the targets of one micro-batch (arrays [B, T])."""
    return _at_targets(_logits(model, micro), micro)


def _logits(model: nnx.Module, micro: Micro) -> jax.Array:
    """float32 [B, T, V]."""
    segments, length = micro["segments"], micro["tokens"].shape[-1]
    same = segments[:, :, None] == segments[:, None, :]
    mask = same & jnp.tril(jnp.ones((length, length), bool))
    logits, _ = model(micro["tokens"], micro["positions"], None, mask)
    found: jax.Array = logits.astype(jnp.float32)
    return found


def _at_targets(logits: jax.Array, micro: Micro) -> jax.Array:
    chosen = jnp.take_along_axis(logits, micro["targets"][..., None], axis=-1)[..., 0]
    found: jax.Array = chosen - jax.nn.logsumexp(logits, axis=-1)
    return found


def loss(model: nnx.Module, batch: Micro) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`loss_sum` over all targets of the batch [A, B, T] by its `divisor`, and `loss_sum`.

    With several micro-batches only one is in memory at a time, at the price of computing each twice.
    """
    graph, state = nnx.split(model)

    arrays = {name: array for name, array in batch.items() if name != "divisor"}

    def one(micro: Micro) -> jax.Array:
        # A copy: gradient checkpointing updates the variables, which only the trace that made them may do.
        found: jax.Array = weighted_loss(_logprobs(nnx.merge(graph, state, copy=True), micro), micro["weights"])
        return found

    if len(arrays["tokens"]) == 1:
        total = one({name: array[0] for name, array in arrays.items()})
    else:
        total = jax.lax.map(jax.checkpoint(one), arrays).sum()
    # A non-finite loss makes the gradient non-finite, which the optimizer detects.
    safe = jnp.where(jnp.isfinite(total), 1.0, jnp.nan)
    return safe * total / batch["divisor"], {"loss_sum": total}


def trainer(model: nnx.Module, optimizer: optax.GradientTransformation, device: jax.Device) -> PeftTrainer:
    """Tunix's trainer, of which only the jitted step is used: it keeps no checkpoints and no metrics."""
    made: PeftTrainer = PeftTrainer(model, optimizer, TrainingConfig(eval_every_n_steps=1))
    # Placed as it is after the first step: otherwise the second step would be compiled again.
    nnx.update(made.optimizer, jax.device_put(nnx.state(made.optimizer), device))
    return made.with_loss_fn(loss, has_aux=True).with_gen_model_input_fn(lambda batch: {"batch": batch})


@jax.jit
def finite(loss_sum: jax.Array, grad_norm: jax.Array) -> jax.Array:
    """Whether the update was applied."""
    return jnp.isfinite(loss_sum) & jnp.isfinite(grad_norm)


def _score(model: nnx.Module, batch: Micro, top: int = 0) -> dict[str, jax.Array]:
    graph, state = nnx.split(model)

    def one(micro: Micro) -> dict[str, jax.Array]:
        logits = _logits(nnx.merge(graph, state, copy=True), micro)
        found = {"logprobs": jnp.where(micro["weights"] != 0, _at_targets(logits, micro), 0)}
        if top:
            values, ids = jax.lax.top_k(logits, min(top, logits.shape[-1]))
            found |= {"top_ids": ids, "top_logprobs": values - jax.nn.logsumexp(logits, axis=-1, keepdims=True)}
        return found

    found: dict[str, jax.Array] = jax.lax.map(one, batch)
    return found


score: Callable[..., dict[str, jax.Array]] = nnx.jit(_score, static_argnames=("top",))
"""(model, batch, top=0) → what `Backend.logprobs` returns, [A, B, T, ...]."""
