"""Optimizers with what they keep, keyed by weight name: AdamW by torch's fused kernel, all others by their rules.

The fused kernel is called directly: `torch.optim.AdamW` is the same (tested equal), but its constructor imports torch's
compiler, 5 CPU-seconds at each start.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tunix_rt.backends.optimizers.registry import rule_of
from tunix_rt.backends.optimizers.rule import Framework, Rule, Trained
from tunix_rt.backends.storage import Moments
from tunix_rt.backends.torch.gather import all_rows, own_rows
from tunix_rt.backends.torch.mesh import ALONE, Axis
from tunix_rt.config.optimizers import AdamWConfig, OptimizerConfig

TORCH = Framework(torch, lambda array, like: torch.from_numpy(array).to(like.device))
Kept = dict[str, dict[str, Tensor]]


class Optimizer(ABC):
    """What is kept of each weight, and the number of updates applied."""

    def __init__(self, rule: Rule, trained: Mapping[str, Trained], weights: Mapping[str, Tensor]) -> None:
        """Zeros. What is shaped as its weight has the shape of the part of the weight that is here."""
        self.kept: Kept = {}
        for name, weight in weights.items():
            for kind, (dtype, shape) in rule.kept(trained[name]).items():
                here = weight.shape if shape == trained[name].shape else shape
                blank = torch.zeros(here, dtype=getattr(torch, dtype), device=weight.device)
                self.kept.setdefault(kind, {})[name] = blank
        self.count = torch.zeros((), device=next(iter(weights.values())).device)
        """float32 scalar, exact up to 2^24 updates."""

    def load(self, moments: Moments) -> None:
        """Continue from what any backend saved; of parts those of the same rows."""
        for kind, tensors in self.kept.items():
            for name, tensor in tensors.items():
                stored = moments.kept[kind][name]
                tensor[: len(stored)].copy_(torch.from_numpy(stored))
        self.count.fill_(moments.count)

    @abstractmethod
    def update(
        self, weights: dict[str, Tensor], gradients: dict[str, Tensor], rate: float, scale: Tensor, skip: Tensor
    ) -> None:
        """Apply one update in place from `gradients` / `scale`; nothing changes if `skip` is 1.

        `scale`, `skip`: float32 scalars on the device, so that the host need not wait for them.
        """


def create(
    config: OptimizerConfig, trained: Mapping[str, Trained], weights: dict[str, Tensor], parts: Axis = ALONE.shard
) -> Optimizer:
    """The optimizer of `weights`; `parts`: the processes each of which holds some rows of them."""
    if isinstance(config, AdamWConfig):
        return AdamW(config, trained, weights)
    return ByRule(config, trained, weights, parts)


class AdamW(Optimizer):
    """First and second moments, `m` and `v`."""

    def __init__(self, config: AdamWConfig, trained: Mapping[str, Trained], weights: dict[str, Tensor]) -> None:
        super().__init__(rule_of(config), trained, weights)
        self._config = config
        exempt = {name for name in weights if trained[name].kind in config.no_decay}
        self._groups = (
            (config.weight_decay, [name for name in weights if name not in exempt]),
            (0.0, [name for name in weights if name in exempt]),
        )

    @torch.no_grad()
    def update(
        self, weights: dict[str, Tensor], gradients: dict[str, Tensor], rate: float, scale: Tensor, skip: Tensor
    ) -> None:
        self.count += 1 - skip
        first, second = self.kept["m"], self.kept["v"]
        for decay, names in self._groups:
            if names:
                torch._fused_adamw_(
                    [weights[name] for name in names],
                    [gradients[name] for name in names],
                    [first[name] for name in names],
                    [second[name] for name in names],
                    [],
                    [self.count] * len(names),
                    lr=rate,
                    beta1=self._config.beta1,
                    beta2=self._config.beta2,
                    weight_decay=decay,
                    eps=self._config.eps,
                    amsgrad=False,
                    maximize=False,
                    grad_scale=scale,
                    found_inf=skip,
                )


class ByRule(Optimizer):
    """Any optimizer, tensor by tensor. Where its rule needs a whole tensor, the parts of one are gathered at a time."""

    def __init__(
        self, config: OptimizerConfig, trained: Mapping[str, Trained], weights: dict[str, Tensor], parts: Axis
    ) -> None:
        self._rule = rule_of(config)
        super().__init__(self._rule, trained, weights)
        self._config, self._trained = config, trained
        self._parts = ALONE.shard if config.elementwise else parts

    @torch.no_grad()
    def update(
        self, weights: dict[str, Tensor], gradients: dict[str, Tensor], rate: float, scale: Tensor, skip: Tensor
    ) -> None:
        self.count += 1 - skip
        skipped = skip > 0
        for name, weight in weights.items():
            kept = {kind: tensors[name] for kind, tensors in self.kept.items() if name in tensors}
            direction, after = self._direction(name, weight, gradients[name] / scale, kept)
            if self._config.weight_decay > 0 and self._trained[name].kind not in self._config.no_decay:
                direction = direction.add(weight, alpha=self._config.weight_decay)
            _replace(weight, weight.sub(direction, alpha=rate), skipped)
            for kind, tensor in kept.items():
                _replace(tensor, after[kind], skipped)

    def _direction(
        self, name: str, weight: Tensor, gradient: Tensor, kept: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `Rule.direction`, of the rows that are here."""
        tensor, parts = self._trained[name], self._parts
        like = {kind for kind, (_, shape) in self._rule.kept(tensor).items() if shape == tensor.shape}

        def gathered(x: Tensor) -> Tensor:
            return all_rows(x, tensor.shape[0], parts)

        found = {kind: _indexing(gathered(x) if kind in like else x) for kind, x in kept.items()}
        direction, after = self._rule.direction(TORCH, tensor, gathered(weight), gathered(gradient), found, self.count)
        kept_after = {kind: own_rows(x, parts) if kind in like else x for kind, x in after.items()}
        return own_rows(direction, parts), kept_after


def _indexing(kept: Tensor) -> Tensor:
    """uint8 would be a mask in torch."""
    return kept.int() if kept.dtype == torch.uint8 else kept


def _replace(tensor: Tensor, new: Any, skipped: Tensor) -> None:
    tensor.copy_(torch.where(skipped, tensor, new.to(tensor.dtype)))
