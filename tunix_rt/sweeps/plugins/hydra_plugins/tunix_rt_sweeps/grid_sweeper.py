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
        self._size, self._params = max_batch_size, params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Resolve the sweep's folder, then create the launcher. Raises MissingExtra."""
        from hydra.core.plugins import Plugins

        from tunix_rt.sweeps import grid, run

        run.require(config)
        self._loader, self._config = hydra_context.config_loader, config
        self._sweep = run.resolve_sweep_folder(config, grid.search_of(self._params))
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: Sequence[str]) -> None:
        """Run the members. Raises RunError if some failed."""
        from tunix_rt.sweeps import grid

        members = grid.combinations(self._loader, self._params, arguments)
        grid.sweep_grid(self._sweep, self._config, self._loader, self._launcher, members, self._size)
