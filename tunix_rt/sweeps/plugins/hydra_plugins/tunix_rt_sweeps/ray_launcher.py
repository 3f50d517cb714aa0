"""Members as Ray tasks. (hydra-ray-launcher 1.2 asks for a Ray of 2022, and for cluster files of its own.)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class RayLauncher(Launcher):
    """Hands members to a Ray cluster and waits for them."""

    def __init__(self, address: str | None, num_cpus: int | None, resources: dict[str, Any]) -> None:
        self._address, self._num_cpus, self._resources = address, num_cpus, resources

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what a member needs; nothing is started yet."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run every member, and wait for all of them. Raises RayError where Ray itself fails."""
        from hydra.core.singleton import Singleton

        from tunix_rt.sweeps.ray_tasks import run_on_ray

        jobs = [(list(overrides), initial_job_idx + index) for index, overrides in enumerate(job_overrides)]
        member = (self._context, self._config, self._task, Singleton.get_state())
        return run_on_ray(self._address, self._num_cpus, dict(self._resources), _member, member, jobs)


def _member(
    context: HydraContext, config: DictConfig, task: TaskFunction, state: Any, overrides: list[str], number: int
) -> JobReturn:
    """What runs in a worker, as Hydra's other launchers do it."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.singleton import Singleton
    from hydra.core.utils import run_job, setup_globals
    from omegaconf import open_dict

    setup_globals()
    Singleton.set_state(state)
    composed = context.config_loader.load_sweep_config(config, overrides)
    with open_dict(composed):
        composed.hydra.job.id = composed.hydra.job.num = number
    HydraConfig.instance().set_config(composed)
    return run_job(
        hydra_context=context,
        task_function=task,
        config=composed,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
