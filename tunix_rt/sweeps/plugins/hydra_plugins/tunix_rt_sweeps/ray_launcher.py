"""Members as Ray tasks. (hydra-ray-launcher 1.2 requires a Ray of 2022, and its own cluster files.)"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class RayLauncher(Launcher):
    """Hands members to a Ray cluster and waits for them."""

    def __init__(self, address: str | None, num_cpus: int | None, resources: dict[str, Any]) -> None:
        """`address` None starts a cluster on this machine, which ends with the sweep's members."""
        self._address, self._num_cpus, self._resources = address, num_cpus, resources

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what a member needs; nothing is started yet."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run every member, and wait for all of them. Raises MachineError, and RayError if Ray itself fails."""
        # Otherwise a task without GPUs would see none, even if the member asks for one by its index.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray
        from hydra.core.singleton import Singleton

        from tunix_rt.sweeps.ray_nodes import check_nodes

        started = not ray.is_initialized()
        if started:
            own: dict[str, Any] = {"num_cpus": self._num_cpus} if self._address is None else {}
            quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False}
            ray.init(address=self._address, **quiet, **own)
        try:
            nodes: Any = ray.nodes
            check_nodes(nodes(), self._resources, fixed=self._address is None)
            task: Any = ray.remote(max_retries=0, **dict(self._resources))(_member)
            shared = [ray.put(part) for part in (self._context, self._config, self._task, Singleton.get_state())]
            waiting = [task.remote(*shared, list(job), initial_job_idx + at) for at, job in enumerate(job_overrides)]
            ray.wait(waiting, num_returns=len(waiting))
            return [ray.get(done) for done in waiting]
        finally:
            if started:
                ray.shutdown()


def _member(
    context: HydraContext, config: DictConfig, task: TaskFunction, state: Any, overrides: list[str], number: int
) -> JobReturn:
    """Runs one member in a worker, like Hydra's other launchers."""
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
