"""Long rows without their scores in memory: each way of each backend against masked attention in float64.

The kernels of GPUs and TPUs run here interpreted; torch's, which cannot, is replaced by what its documentation says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from tunix_rt.backends.jax import kernels
from tunix_rt.backends.jax.long_rows import attend_long
from tunix_rt.backends.torch import attention, varlen
from tunix_rt.models.families.architecture import Architecture, LayerKind

LENGTH, KV_HEADS, GROUP, WIDTH = 300, 2, 2, 8
TRACES = ([130, 60, 100], [7, 1, 285])
"""Boundaries inside of blocks, padding at the end, one trace longer than a block of 256."""
Way = tuple[int | None, float | None]
"""A window and a cap."""


def architecture(window: int | None, cap: float | None) -> Architecture:
    """One layer; the scale is no power of two."""
    heads = KV_HEADS * GROUP
    layers = (LayerKind(None, window),)
    return Architecture("llama", 5, 8, 8, heads, KV_HEADS, WIDTH, LENGTH, layers, 1e-5, True, 0.4, score_cap=cap)


def segments() -> Any:
    """int32 [B, T] of TRACES."""
    made = np.zeros((len(TRACES), LENGTH), np.int32)
    for row, lengths in enumerate(TRACES):
        made[row, : sum(lengths)] = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    return made


@pytest.fixture(scope="module")
def given() -> list[Any]:
    """Queries [B, K, G, T, d], keys and values [B, K, T, d], a weight of each output, 0 in padding."""
    random, shape = np.random.default_rng(0), (len(TRACES), KV_HEADS, LENGTH, WIDTH)
    queries, weights = (random.standard_normal((*shape[:2], GROUP, *shape[2:]), np.float32) for _ in range(2))
    keys, values = (random.standard_normal(shape, np.float32) for _ in range(2))
    return [queries, keys, values, weights * (segments() > 0)[:, None, None, :, None]]


def mask(window: int | None) -> Any:
    """bool [B, 1, 1, T, T]."""
    of, places = segments(), np.arange(LENGTH)
    back = places[:, None] - places
    seen = (of[:, :, None] == of[:, None, :]) & (back >= 0) & (back < (window or LENGTH))
    return torch.from_numpy(seen)[:, None, None]


def expected(given: list[Any], window: int | None, cap: float | None) -> list[Any]:
    """Weighted outputs, and the gradients of their sum, in float64."""
    *arrays, weights = (torch.from_numpy(x).double() for x in given)
    queries, keys, values = (x.requires_grad_() for x in arrays)
    scores = queries @ keys[:, :, None].transpose(-1, -2) * 0.4
    scores = scores if cap is None else cap * torch.tanh(scores / cap)
    read = scores.masked_fill(~mask(window), -torch.inf).softmax(-1) @ values[:, :, None] * weights
    return [x.detach().numpy() for x in (read, *torch.autograd.grad(read.sum(), (queries, keys, values)))]


def agree(found: list[Any], wanted: list[Any], tolerance: float = 1e-5) -> None:
    for got, exact in zip(found, wanted, strict=True):
        np.testing.assert_allclose(np.asarray(got), exact, atol=tolerance)


def in_torch(given: list[Any], window: int | None, cap: float | None) -> list[Any]:
    """What `Packed` gives, in the layout of `expected`."""
    arrays = [torch.from_numpy(x).requires_grad_() for x in given[:3]]
    attend = attention.Packed(segments(), architecture(window, cap), torch.device("cpu"))
    read = attend(0, arrays[0].flatten(1, 2), *arrays[1:]).view(arrays[0].shape) * torch.from_numpy(given[3])
    return [x.detach().numpy() for x in (read, *torch.autograd.grad(read.sum(), arrays))]


@pytest.mark.parametrize(("window", "cap"), [(None, None), (50, None), (None, 1.5), (50, 1.5)])
def test_torch_on_the_cpu(given: list[Any], window: int | None, cap: float | None, monkeypatch: Any) -> None:
    """Trace by trace, or in blocks of 64 queries; no [T, T] is made."""
    monkeypatch.setattr(attention, "LONGEST_WHOLE", 64)
    monkeypatch.setattr("tunix_rt.backends.torch.blocks.BLOCK", 64)
    monkeypatch.setattr(attention, "_mask", lambda *_: pytest.fail("scores of a whole row"))
    agree(in_torch(given, window, cap), expected(given, window, cap))


def documented(
    queries: Any, keys: Any, values: Any, traces: varlen.Traces, window_size: tuple[int, int], scale: float
) -> Any:
    """`torch.nn.attention.varlen.varlen_attn` as documented: [positions, heads, d], keys before and after."""
    assert window_size[1] == 0 and traces.longest == traces.ends.diff().max()
    found, before = [], window_size[0]
    for begin, end in zip(traces.ends[:-1].tolist(), traces.ends[1:].tolist(), strict=True):
        own = [x[begin:end].transpose(0, 1) for x in (queries, keys, values)]
        back = torch.arange(end - begin)[:, None] - torch.arange(end - begin)
        seen = (back >= 0) & ((before < 0) | (back <= before))
        read = scaled_dot_product_attention(*own, attn_mask=seen, scale=scale, enable_gqa=True)
        found.append(read.transpose(0, 1))
    return torch.cat(found)


@pytest.mark.parametrize("window", [None, 50, 1])
def test_torch_on_a_gpu(given: list[Any], window: int | None, monkeypatch: Any) -> None:
    """Traces behind one another, grouped heads as they are, and a window that counts differently."""
    monkeypatch.setattr(varlen, "takes", lambda *_: True)
    monkeypatch.setattr(varlen, "kernel", documented)
    monkeypatch.setattr(attention, "_mask", lambda *_: pytest.fail("scores of a whole row"))
    agree(in_torch(given, window, None), expected(given, window, None))


def test_torch_takes_the_kernel_only_where_it_works() -> None:
    """Not on the CPU, and never for a cap."""
    queries = torch.zeros(1, 1, 1, 8, dtype=torch.bfloat16)
    assert not varlen.takes(queries, architecture(None, None))


INTERPRETED: dict[str, tuple[Callable[..., Any], Way]] = {
    "blocks": (attend_long, (50, 1.5)),
    "gpu": (kernels.on_gpu, (None, None)),
    "tpu": (kernels.on_tpu, (50, 1.5)),
}


@pytest.mark.parametrize("way", INTERPRETED)
def test_jax(given: list[Any], way: str) -> None:
    """Plain jax, Pallas' kernel for GPUs and the one for TPUs."""
    function, (window, cap) = INTERPRETED[way]
    settings = {} if way == "blocks" else {"interpret": True}

    def weighted(*arrays: Any) -> tuple[Any, Any]:
        read = function(*arrays, segments(), window, architecture(window, cap), **settings) * given[3]
        return read.sum(), read

    gradients, read = jax.jit(jax.grad(weighted, argnums=(0, 1, 2), has_aux=True))(*given[:3])
    agree([read, *gradients], expected(given, window, cap))


def test_jax_chooses_by_platform_and_layer() -> None:
    """The CPU has no kernel, Triton's has neither windows nor caps, float32 is for nobody's."""
    half, plain = np.dtype(jax.numpy.bfloat16), architecture(None, None)
    assert kernels.kernel_for("cpu", half, None, plain) is None
    assert kernels.kernel_for("gpu", half, None, plain) is kernels.on_gpu
    assert kernels.kernel_for("gpu", half, 50, plain) is None
    assert kernels.kernel_for("gpu", half, None, architecture(None, 1.5)) is None
    assert kernels.kernel_for("tpu", half, 50, architecture(None, 1.5)) is kernels.on_tpu
    assert kernels.kernel_for("tpu", np.dtype(np.float32), None, plain) is None
