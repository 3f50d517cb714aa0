"""AdamW as `config/training.OptimizerConfig` defines it, with its state keyed by weight name.

Calls torch's fused kernel itself: `torch.optim.AdamW` is the same kernel (tested equal), but its constructor
imports torch's compiler, 5 CPU-seconds at each start.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tunix_rt.backends.storage import Moments
from tunix_rt.config.training import OptimizerConfig


class AdamW:
    """First and second moments (float32, shaped as the weights) and the number of updates applied."""

    def __init__(self, config: OptimizerConfig, kinds: Mapping[str, str], weights: dict[str, Tensor]) -> None:
        """Zero moments for `weights`; `kinds` maps each weight to its `no_decay` kind."""
        self.first, self.second = ({name: torch.zeros_like(w) for name, w in weights.items()} for _ in range(2))
        self.count = torch.zeros((), device=next(iter(weights.values())).device)
        """float32 scalar, exact up to 2^24 updates."""
        self._config = config
        exempt = {name for name in weights if kinds[name] in config.no_decay}
        self._groups = (
            (config.weight_decay, [name for name in weights if name not in exempt]),
            (0.0, [name for name in weights if name in exempt]),
        )

    def load(self, moments: Moments) -> None:
        """Continue from moments that any backend saved; of parts those of the same rows."""
        for stored, tensors in ((moments.first, self.first), (moments.second, self.second)):
            for name, tensor in tensors.items():
                tensor[: len(stored[name])].copy_(torch.from_numpy(stored[name]))
        self.count.fill_(moments.count)

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
                    beta1=self._config.beta1,
                    beta2=self._config.beta2,
                    weight_decay=decay,
                    eps=self._config.eps,
                    amsgrad=False,
                    maximize=False,
                    grad_scale=scale,
                    found_inf=skip,
                )
