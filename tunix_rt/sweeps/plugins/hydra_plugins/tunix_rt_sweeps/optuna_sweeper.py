"""Optuna as a Hydra sweeper. (hydra-optuna-sweeper 1.2 requires Optuna below 3, and does not support pruning.)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OptunaSweeper(Sweeper):
    """The keys of `conf/hydra/sweeper/optuna.yaml`."""

    def __init__(self, **declared: Any) -> None:
        self._declared = declared

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Resolve the sweep's folder, then create the launcher. Raises ConfigError, MissingExtra."""
        from hydra.core.plugins import Plugins

        from tunix_rt.sweeps import declared, run

        run.require(config)
        self._settings, self._params = declared.settings_of(self._declared), self._declared["params"] or {}
        self._loader, self._config = hydra_context.config_loader, config
        self._sweep = run.resolve_sweep_folder(config, declared.search_of(self._declared))
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: Sequence[str]) -> None:
        """Run, or preview, the trials. Raises RunError if some failed."""
        from tunix_rt.sweeps.search import Search
        from tunix_rt.sweeps.space import space_of

        space = space_of(self._params, arguments)
        search = Search(self._sweep, self._config, self._loader, self._launcher, self._settings, space)
        search.preview() if self._config.sweep.preview else search.run()
