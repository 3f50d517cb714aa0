"""The losses of huggingface/trl (commit f2cd57710ae3) and natolambert/rlhf-book, written out on padded tensors.

All tensors are float64: log-probabilities [B, T] with a mask [B, T] of the tokens that count. Rows of pairs are chosen,
rejected, chosen, and so on. Each function names where its formula stands.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import logsigmoid

Tensor = torch.Tensor


def total(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum(-1)


def mean(values: Tensor, mask: Tensor) -> Tensor:
    return total(values, mask) / mask.sum(-1)


def nll_of_chosen(logps: Tensor, mask: Tensor) -> Tensor:
    """trl dpo_trainer.py, loss type `sft`: cross-entropy over all tokens of the chosen answers."""
    return -(logps[0::2] * mask[0::2]).sum() / mask[0::2].sum()


def smoothed(logits: Tensor, label_smoothing: float) -> Tensor:
    """rlhf-book direct_alignment/loss.py `DPOLoss`, trl cpo_trainer.py: conservative DPO."""
    return -logsigmoid(logits) * (1 - label_smoothing) - logsigmoid(-logits) * label_smoothing


def dpo(logps: Tensor, ref: Tensor, mask: Tensor, beta: float, label_smoothing: float, norm: bool) -> Tensor:
    """trl dpo_trainer.py, loss types `sigmoid` and `sigmoid_norm`."""
    scores = (mean if norm else total)(logps - ref, mask)
    return smoothed(beta * (scores[0::2] - scores[1::2]), label_smoothing).mean()


def ipo(logps: Tensor, ref: Tensor, mask: Tensor, beta: float) -> Tensor:
    """trl dpo_trainer.py, loss type `ipo`."""
    scores = mean(logps - ref, mask)
    return ((scores[0::2] - scores[1::2] - 1 / (2 * beta)) ** 2).mean()


def simpo(logps: Tensor, mask: Tensor, beta: float, gamma: float, label_smoothing: float) -> Tensor:
    """trl experimental/cpo/cpo_trainer.py, loss type `simpo`."""
    scores = mean(logps, mask)
    return smoothed(beta * (scores[0::2] - scores[1::2] - gamma / beta), label_smoothing).mean()


def orpo(logps: Tensor, mask: Tensor, beta: float) -> Tensor:
    """trl experimental/orpo/orpo_trainer.py `odds_ratio_loss`, with the likelihood of the answers' tokens alone."""
    scores = mean(logps, mask)
    chosen, rejected = scores[0::2], scores[1::2]
    log_odds = (chosen - rejected) - (torch.log1p(-chosen.exp()) - torch.log1p(-rejected.exp()))
    return nll_of_chosen(logps, mask) - beta * logsigmoid(log_odds).mean()


def kto(logps: Tensor, ref: Tensor, mask: Tensor, beta: float, weights: tuple[float, float], kl: Tensor) -> Tensor:
    """trl kto_trainer.py, loss type `kto`, of chosen and rejected answers."""
    ratios = total(logps - ref, mask)
    chosen = weights[0] * (1 - torch.sigmoid(beta * (ratios[0::2] - kl)))
    rejected = weights[1] * (1 - torch.sigmoid(beta * (kl - ratios[1::2])))
    return torch.cat((chosen, rejected)).mean()


def grpo(
    logps: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    loss_type: str,
    max_tokens: int,
    clip: tuple[float, float],
    kl: Any = 0.0,
) -> Tensor:
    """trl grpo_trainer.py `_compute_loss`: loss types `grpo`, `dr_grpo`, `dapo`; `kl`: coefficient times KL [B, T]."""
    ratio = torch.exp(logps - old)
    clipped = torch.clamp(ratio, 1 - clip[0], 1 + clip[1])
    losses = -torch.min(ratio * advantages[:, None], clipped * advantages[:, None]) + kl
    if loss_type == "grpo":
        return mean(losses, mask).mean()
    return (losses * mask).sum() / (len(losses) * max_tokens if loss_type == "dr_grpo" else mask.sum())


def k2(logps: Tensor, ref: Tensor) -> Tensor:
    """rlhf-book policy_gradients/loss.py `approx_kl2`."""
    return (logps - ref) ** 2 / 2


def k3(logps: Tensor, ref: Tensor) -> Tensor:
    """trl grpo_trainer.py `per_token_kl`."""
    return torch.exp(ref - logps) - (ref - logps) - 1


def rloo(logps: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """trl rloo_trainer.py, one update on fresh samples: the ratio of whole answers, not clipped at 1."""
    answers = total(logps, mask)
    return -(torch.exp(answers - answers.detach()) * advantages).mean()
