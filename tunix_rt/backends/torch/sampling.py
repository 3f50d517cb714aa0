"""The next token of each row, from its logits and one uniform number. Legend: R rows, V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tunix_rt.config.results import GenerationConfig

SMALLEST = torch.finfo(torch.float32).tiny
"""Of temperatures, above 0."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a token is chosen."""

    temperature: float
    top_k: int | None
    top_p: float | None

    @classmethod
    def of(cls, generation: GenerationConfig) -> Settings:
        """Those of them that matter: at temperature 0, and at one that float32 calls 0, nothing but that."""
        if generation.temperature < SMALLEST:
            return cls(0.0, None, None)
        return cls(generation.temperature, generation.top_k, generation.top_p)


def choose(logits: Tensor, uniform: Tensor, settings: Sequence[Settings]) -> Tensor:
    """Tokens int64 [R] from `logits` [R, V], one number of `uniform` [R] and its settings for each row."""
    different = dict.fromkeys(settings)
    if len(different) == 1:
        return _chosen(logits, uniform, settings[0])
    found = torch.empty(len(settings), dtype=torch.int64, device=logits.device)
    for own in different:
        rows = torch.tensor([i for i, other in enumerate(settings) if other == own], device=logits.device)
        found[rows] = _chosen(logits[rows], uniform[rows], own)
    return found


def _chosen(logits: Tensor, uniform: Tensor, settings: Settings) -> Tensor:
    return logits.argmax(-1) if settings.temperature == 0 else sample(logits, uniform, settings)


def sample(logits: Tensor, uniform: Tensor, settings: Settings) -> Tensor:
    """Tokens int64 [R] from `logits` [R, V] and one uniform number [R] each, by inversion in vocabulary order.

    Temperature first, then top-k, then top-p, as in transformers; all ties at a threshold are kept.
    """
    logits = (logits - logits.max(-1, keepdim=True).values) / settings.temperature  # finite at low ones, too
    if settings.top_k is not None and settings.top_k < logits.shape[-1]:
        smallest = logits.topk(settings.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    probabilities = logits.softmax(-1)
    if settings.top_p is not None and settings.top_p < 1:
        ranked = probabilities.sort(descending=True).values
        needed = (ranked.cumsum(-1) - ranked < settings.top_p).sum(-1, keepdim=True)
        probabilities = probabilities.where(probabilities >= ranked.gather(-1, needed - 1), 0.0)
    cumulative = probabilities.cumsum(-1)
    total = cumulative[:, -1]
    # Rounding may lift u * total to the total itself, beyond the last token.
    drawn = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    # What is no number is above every sum: the last token then, since there must be one.
    return torch.searchsorted(cumulative, drawn[:, None], right=True)[:, 0].clamp_(max=logits.shape[-1] - 1)
