"""The Llama decoder: token ids → hidden states, over plain tensors named as Hugging Face names them.

The mathematics is that of `transformers.LlamaForCausalLM` (tested against it); training and generation run
this one function and differ only in `Attend`. Own code because importing the transformers model alone costs
9 CPU-seconds, three times what torch itself takes, and its per-call overhead slows decoding of small models.
Legend: B rows, T positions, E hidden width, H query heads, K key and value heads, D head width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear, rms_norm, silu

from tunix_rt.backends.torch.attention import Attend
from tunix_rt.models.families.architecture import Architecture


@dataclass(frozen=True, slots=True)
class Decoder:
    """A model's numbers and its weights."""

    architecture: Architecture
    weights: dict[str, Tensor]
    """By Hugging Face name; a tied output head has no entry."""

    @property
    def head(self) -> Tensor:
        """The output matrix [V, E]."""
        return self.weights.get("lm_head.weight", self.weights["model.embed_tokens.weight"])

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.device


def hidden_states(model: Decoder, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
    """`tokens`, `positions` int64 [B, T] → float32 [B, T, E], after the last norm."""
    weights, eps = model.weights, model.architecture.norm_eps
    rotation = _rotation(model, positions)
    x = embedding(tokens, weights["model.embed_tokens.weight"])
    for layer in range(model.architecture.num_layers):
        name = f"model.layers.{layer}."
        y = rms_norm(x, x.shape[-1:], weights[name + "input_layernorm.weight"], eps)
        x = x + _attention(model, layer, y, rotation, attend)
        y = rms_norm(x, x.shape[-1:], weights[name + "post_attention_layernorm.weight"], eps)
        gate, up = (linear(y, weights[name + f"mlp.{part}_proj.weight"]) for part in ("gate", "up"))
        x = x + linear(silu(gate) * up, weights[name + "mlp.down_proj.weight"])
    return rms_norm(x, x.shape[-1:], weights["model.norm.weight"], eps)


def _attention(model: Decoder, layer: int, x: Tensor, rotation: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
    rows, length, _ = x.shape
    name = f"model.layers.{layer}.self_attn."
    shape = (rows, length, -1, model.architecture.head_dim)
    queries, keys, values = (linear(x, model.weights[name + f"{part}_proj.weight"]) for part in "qkv")
    both = _rotate(torch.cat((queries, keys), dim=-1).view(shape), *rotation)
    heads = [model.architecture.num_heads, model.architecture.num_kv_heads]
    queries, keys = torch.split(both.transpose(1, 2), heads, dim=1)
    out = attend(layer, queries.to(values.dtype), keys.to(values.dtype), values.view(shape).transpose(1, 2))
    return linear(out.transpose(1, 2).reshape(rows, length, -1), model.weights[name + "o_proj.weight"])


def _rotation(model: Decoder, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the rotary angles, float32 [B, T, H + K, D]; the sine of the first half is negated.

    Expanded over heads once, since every layer multiplies by it and torch is slow at short broadcast rows.
    """
    width = model.architecture.head_dim
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=positions.device) / width
    angles = positions[..., None].float() * (1.0 / model.architecture.rope_theta**exponents)
    heads = model.architecture.num_heads + model.architecture.num_kv_heads
    cos, sin = (
        torch.cat(halves, dim=-1)[:, :, None].expand(-1, -1, heads, -1).contiguous()
        for halves in ((angles.cos(), angles.cos()), (-angles.sin(), angles.sin()))
    )
    return cos, sin


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on [B, T, H, D] (arXiv 2104.09864), halves paired as in transformers."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)
