"""AdamW as `config/training.OptimizerConfig` defines it, with its state keyed by weight name.

Calls torch's fused kernel itself: `torch.optim.AdamW` is the same kernel (tested equal), but its constructor
imports torch's compiler, 5 CPU-seconds at each start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tunix_rt.config.training import OptimizerConfig


@dataclass(slots=True)
class AdamW:
    """First and second moments (float32, shaped as the weights) and the number of updates applied."""

    config: OptimizerConfig
    kinds: Mapping[str, str]
    """Maps each weight to its `no_decay` kind."""
    first: dict[str, Tensor]
    second: dict[str, Tensor]
    count: Tensor
    """float32 scalar, exact up to 2^24 updates."""
    _groups: tuple[tuple[float, list[str]], ...] = field(init=False)

    def __post_init__(self) -> None:
        decayed = {name for name in self.first if self.kinds[name] not in self.config.no_decay}
        self._groups = (
            (self.config.weight_decay, [name for name in self.first if name in decayed]),
            (0.0, [name for name in self.first if name not in decayed]),
        )

    @classmethod
    def fresh(cls, config: OptimizerConfig, kinds: Mapping[str, str], weights: dict[str, Tensor]) -> AdamW:
        """Zero moments for `weights`."""
        first, second = ({name: torch.zeros_like(w) for name, w in weights.items()} for _ in range(2))
        device = next(iter(weights.values())).device
        return cls(config, kinds, first, second, torch.zeros((), device=device))

    @torch.no_grad()
    def update(
        self,
        weights: dict[str, Tensor],
        gradients: dict[str, Tensor],
        rate: float,
        scale: Tensor,
        skip: Tensor,
    ) -> None:
        """Apply one update in place from `gradients` / `scale`; nothing changes if `skip` is 1.

        `scale`, `skip`: float32 scalars on the device, so that the host need not wait for them.
        """
        self.count += 1 - skip
        for decay, names in self._groups:
            if names:
                torch._fused_adamw_(
                    [weights[name] for name in names],
                    [gradients[name] for name in names],
                    [self.first[name] for name in names],
                    [self.second[name] for name in names],
                    [],
                    [self.count] * len(names),
                    lr=rate,
                    beta1=self.config.beta1,
                    beta2=self.config.beta2,
                    weight_decay=decay,
                    eps=self.config.eps,
                    amsgrad=False,
                    maximize=False,
                    grad_scale=scale,
                    found_inf=skip,
                )
