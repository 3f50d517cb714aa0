"""Optuna as a Hydra sweeper. (hydra-optuna-sweeper 1.2 requires Optuna below 3, and does not support pruning.)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class OptunaSweeper(Sweeper):
    """The keys of `conf/hydra/sweeper/optuna.yaml`."""

    def __init__(self, **declared: Any) -> None:
        self._declared: Any = OmegaConf.to_container(OmegaConf.create(declared))

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Check the settings and prepare the sweep. Raises ConfigError, MissingExtra."""
        from tunix_rt.config.load import check_section
        from tunix_rt.sweeps import run
        from tunix_rt.sweeps.study import StudySettings

        values = {key: value for key, value in self._declared.items() if key != "params"}
        self._settings = check_section("hydra.sweeper", StudySettings, values)
        whatever = ("n_trials", "n_jobs")  # a search may go on with more trials
        search = {key: value for key, value in self._declared.items() if key not in whatever}
        self._sweeping = run.set_up({"sweeper": "optuna"} | search, hydra_context, task_function, config)

    def sweep(self, arguments: Sequence[str]) -> None:
        """Run, or preview, the trials. Raises RunError if some failed."""
        from tunix_rt.sweeps.search import Search
        from tunix_rt.sweeps.space import space_of

        search = Search(self._sweeping, self._settings, space_of(self._declared["params"] or {}, arguments))
        search.preview() if self._sweeping.config.sweep.preview else search.run()
