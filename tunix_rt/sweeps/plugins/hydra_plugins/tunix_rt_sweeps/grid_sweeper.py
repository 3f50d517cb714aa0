"""Hydra's basic sweeper, with members planned, recorded and supervised by `tunix_rt.sweeps`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class GridSweeper(Sweeper):
    """Every combination; `max_batch_size` members are handed to the launcher at a time, by default all."""

    def __init__(self, max_batch_size: int | None, params: dict[str, Any] | None) -> None:
        self._size, self._params = max_batch_size, params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Prepare the sweep. Raises MissingExtra."""
        from tunix_rt.sweeps import run

        search = {"sweeper": "grid", "params": {key: str(value) for key, value in self._params.items()}}
        self._sweeping = run.set_up(search, hydra_context, task_function, config)

    def sweep(self, arguments: Sequence[str]) -> None:
        """Run the members. Raises RunError if some failed."""
        from tunix_rt.sweeps import grid

        members = grid.combinations(self._sweeping.loader, self._params, arguments)
        grid.sweep_grid(self._sweeping, members, self._size)
