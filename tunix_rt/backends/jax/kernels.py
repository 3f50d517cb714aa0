"""Attention of packed rows by kernels that come with jax: Pallas' Triton kernel on GPUs, splash attention on TPUs.

Neither holds scores in memory. cuDNN's (`jax.nn.dot_product_attention`) would need a mask [T, T] for packed rows. Both
run on the CPU too, interpreted, which is how they are tested. What they do not take, `long_rows` does.
Legend: B rows, T positions, K key-value heads, G query heads of each, d width of a head.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tunix_rt.backends.jax.products import rounded
from tunix_rt.models.families.architecture import Architecture

ALIGNED = 128
"""Rows are filled up to a multiple of this length, as both kernels require."""
TPU_BLOCK = 512
"""Most positions that the TPU's kernel reads at once."""
Kernel = Callable[[jax.Array, jax.Array, jax.Array, jax.Array, int | None, Architecture], jax.Array]
"""Queries [B, K, G, T, d], keys and values [B, K, T, d], segments int32 [B, T], window → [B, K, G, T, d]."""


def kernel_for(platform: str, dtype: jnp.dtype, window: int | None, a: Architecture) -> Kernel | None:
    """The kernel of a platform ("cpu", "gpu", "tpu"), if it has one for this layer."""
    if jnp.dtype(dtype) != jnp.bfloat16:
        return None
    if platform == "tpu":
        return on_tpu
    return on_gpu if platform == "gpu" and window is None and a.score_cap is None else None


def on_gpu(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    segments: jax.Array,
    window: int | None,
    a: Architecture,
    interpret: bool = False,
) -> jax.Array:
    """Pallas' kernel for Triton, which has neither windows nor caps."""
    from jax.experimental.pallas.ops.gpu.attention import mha

    assert window is None and a.score_cap is None
    rows, kv_heads, group, length, width = queries.shape
    own = queries.reshape(rows, kv_heads * group, length, width)
    theirs = (jnp.repeat(x, group, axis=1) for x in (keys, values))
    packed = (jnp.swapaxes(_filled(x, 2), 1, 2) for x in (own, *theirs))
    found = mha(*packed, _filled(segments, 1), sm_scale=a.attention_scale, causal=True, interpret=interpret)
    return jnp.swapaxes(found[:, :length], 1, 2).reshape(queries.shape)


def on_tpu(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    segments: jax.Array,
    window: int | None,
    a: Architecture,
    interpret: bool = False,
) -> jax.Array:
    """Splash attention: blocks that no query sees are skipped."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    length = queries.shape[3]
    own = _filled(rounded(queries.astype(jnp.float32) * a.attention_scale, queries.dtype), 3)
    theirs, ids = (_filled(x, 2) for x in (keys, values)), _filled(segments, 1)
    full = (own.shape[3],) * 2
    mask = masks.CausalMask(full) if window is None else masks.LocalMask(full, (window - 1, 0), 0)
    block = next(size for size in (TPU_BLOCK, TPU_BLOCK // 2, ALIGNED) if full[0] % size == 0)
    kernel = splash.make_splash_mqa_single_device(
        masks.MultiHeadMask([mask] * queries.shape[2]),
        block_sizes=splash.BlockSizes(block, block, None, block, block, None, block, block),
        attn_logits_soft_cap=a.score_cap,
        interpret=interpret,
    )
    heads = jax.vmap(kernel, in_axes=(0, 0, 0, None))
    found: jax.Array = jax.vmap(heads)(own, *theirs, splash.SegmentIds(q=ids, kv=ids))
    return found[:, :, :, :length]


def _filled(x: jax.Array, axis: int) -> jax.Array:
    """`x` with zeros at the end of `axis`, up to a multiple of ALIGNED. Segment 0 is padding."""
    return jnp.pad(x, [(0, -x.shape[axis] % ALIGNED if place == axis else 0) for place in range(x.ndim)])
