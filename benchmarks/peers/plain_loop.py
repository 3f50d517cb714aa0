"""A loop as one writes it by hand: a Llama of torch modules, packed rows without isolation, logits at targets only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.race import THREADS, Clock, Lap, Ready
from benchmarks.training_case import TrainingCase
from tunix_rt.batches.schedule import batch_schedule
from tunix_rt.models.folder import read_architecture, read_weights


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """[B, H, T, D] by the angles of its positions, halves apart as in Llama."""
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class Attention(nn.Module):
    def __init__(self, a: Any) -> None:
        super().__init__()
        self.width, self.shared = a.head_dim, a.num_heads != a.num_kv_heads
        self.q_proj = nn.Linear(a.hidden_size, a.num_heads * a.head_dim, bias=False)
        self.k_proj = nn.Linear(a.hidden_size, a.num_kv_heads * a.head_dim, bias=False)
        self.v_proj = nn.Linear(a.hidden_size, a.num_kv_heads * a.head_dim, bias=False)
        self.o_proj = nn.Linear(a.num_heads * a.head_dim, a.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (-1, self.width)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        read = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.shared)
        return self.o_proj(read.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, a: Any) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(a.hidden_size, a.intermediate_size, bias=False)
        self.up_proj = nn.Linear(a.hidden_size, a.intermediate_size, bias=False)
        self.down_proj = nn.Linear(a.intermediate_size, a.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, a: Any) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(a), MLP(a)
        self.input_layernorm = nn.RMSNorm(a.hidden_size, a.norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(a.hidden_size, a.norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """Named as the files of Hugging Face name it; the head is the embedding matrix."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        a = read_architecture(folder)
        assert (a.family, a.tie_embeddings) == ("llama", True), "the plain loop is a Llama with tied embeddings"
        self.embed_tokens = nn.Embedding(a.vocab_size, a.hidden_size)
        self.layers = nn.ModuleList(Block(a) for _ in range(a.num_layers))
        self.norm = nn.RMSNorm(a.hidden_size, a.norm_eps)
        rope = a.layers[0].rope
        assert rope is not None
        self.frequencies = rope.theta ** (-torch.arange(0, a.head_dim, 2) / a.head_dim)
        weights = {name.removeprefix("model."): torch.from_numpy(array) for name, array in read_weights(folder).items()}
        self.load_state_dict({name: tensor for name, tensor in weights.items() if name != "lm_head.weight"})

    def loss(self, tokens: Tensor, targets: Tensor, chosen: Tensor) -> Tensor:
        """Mean over the `chosen` targets of [R, T]."""
        angles = torch.arange(tokens.shape[1])[:, None] * self.frequencies
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, angles.cos(), angles.sin())
        logits = self.norm(x)[chosen] @ self.embed_tokens.weight.T
        return functional.cross_entropy(logits.float(), targets[chosen])


def plain_loop(plan: TrainingCase) -> Ready:
    """Laps of the loop, over the rows that ours packs."""
    torch.set_num_threads(THREADS)
    config, prepared, training = plan.workload.config, plan.workload.prepared(), plan.training
    order, _ = batch_schedule(training, prepared)

    def lap() -> Lap:
        model = Llama(prepared.model_folder)
        optimizer = _adamw(model, config.optimizer)
        clock, tokens, losses = Clock(), 0, []
        for step in range(plan.num_updates):
            batch = order.batch_at(step)
            rows = (torch.from_numpy(np.asarray(part)).long() for part in (batch.tokens, batch.targets))
            chosen = torch.from_numpy(np.asarray(batch.weights) > 0)
            with torch.autocast("cpu", torch.bfloat16, config.backend.precision == "bfloat16"):
                loss = model.loss(*rows, chosen)
            loss.backward()
            if training.clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            tokens += int((batch.segments > 0).sum())
        return clock.lap(tokens, updates=len(losses), loss=float(np.mean(losses)))

    return lap


def _adamw(model: Llama, rule: Any) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    norms = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": rule.weight_decay}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, rule.learning_rate, (rule.beta1, rule.beta2), rule.eps, fused=True)
