"""Members as a job array of SLURM, by submitit. (Its own launcher asks `sacct`, which not every cluster has.)"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SlurmLauncher(Launcher):
    """The keys of `conf/hydra/launcher/submitit_slurm.yaml`."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what a member needs; nothing is submitted yet."""
        from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher as Worker

        self._config = config
        self._worker = Worker(**self._settings)
        self._worker.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit every member, and wait until each has ended or is out of the queue. Raises what submitit raises."""
        from hydra.core.singleton import Singleton

        from tunix_rt.runs.sweep import SweepFolder
        from tunix_rt.sweeps import slurm

        settings = dict(self._worker.params)
        settings["tasks_per_node"] = slurm.tasks_per_node(settings, str(self._config.backend.name), job_overrides)
        members = [list(job) for job in job_overrides]
        numbers = range(initial_job_idx, initial_job_idx + len(members))
        each = [
            (job, "hydra.sweep.dir", number, str(number), Singleton.get_state())
            for job, number in zip(members, numbers, strict=True)
        ]
        jobs = slurm.submit(settings, self._worker, *zip(*each, strict=True))
        slurm.wait(SweepFolder(Path(str(self._config.hydra.sweep.dir))), jobs, members)
        return []
