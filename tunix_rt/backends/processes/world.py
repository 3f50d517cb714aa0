"""Which process of a job this one is, as torch's or SLURM's launcher, or a TPU pod, says in the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tunix_rt.errors import ConfigError
from tunix_rt.machine import usable_cores

TAKEN = "TUNIX_RT_WORLD_OF"
"""Variable with the id of the process that the launcher's variables are about; what it starts inherits them too."""
SLURM_PORTS = 61440
"""The first of 4096 ports, of which the id of a SLURM job chooses one (as jax, _src/clusters/slurm_cluster.py)."""
TPU_PORT = 8476
"""The port of a TPU pod (jax, _src/clusters/cloud_tpu_cluster.py)."""


@dataclass(frozen=True, slots=True)
class World:
    """One process among those of a job. Rank 0 leads; it alone has the run folder, the tracker and the terminal."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """The same on this machine."""
    local_size: int = 1
    address: str = "127.0.0.1"
    """Where rank 0 is reached."""
    port: int = 0
    """There the processes' framework meets (`init_process_group`, `jax.distributed.initialize`); it is free."""
    shares_cores: bool = True
    """Whether the processes of this machine run on the same cores; a scheduler may give each its own."""

    @property
    def leads(self) -> bool:
        """Whether this process decides, and the others do as it does."""
        return self.rank == 0

    def threads(self, declared: int | str) -> int:
        """This process's share of `hardware.threads`, at least 1; `auto`: of the cores that it may use."""
        if declared == "auto":
            return max(1, usable_cores() // (self.local_size if self.shares_cores else 1))
        return max(1, int(declared) // self.local_size)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> World:
        """What the launcher says; one process alone where nothing does. Raises ConfigError where it makes no sense."""
        return _first(environment, _torchrun, _slurm)

    @classmethod
    def of_tpu_pod(cls, environment: Mapping[str, str] = os.environ) -> World:
        """This host among those of a TPU pod, where it is one. Raises ConfigError where it makes no sense.

        No launcher has started one command on all of them: every shell of a host has these variables.
        """
        return _first(environment, _tpu_pod)


ALONE = World()


def _first(environment: Mapping[str, str], *readers: Callable[[Mapping[str, str]], World | None]) -> World:
    """What the first of the launchers says that is there."""
    if environment.get(TAKEN, str(os.getpid())) != str(os.getpid()):
        return ALONE
    worlds = (read(environment) for read in readers)
    return next((world for world in worlds if world is not None and world.size > 1), ALONE)


def _torchrun(environment: Mapping[str, str]) -> World | None:
    """The variables that `torchrun` sets, and that others set like it (docs.pytorch.org/docs/stable/elastic/run)."""
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return None
    rank, size = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
    local_rank, local_size = (
        _number(environment, name, default) for name, default in (("LOCAL_RANK", rank), ("LOCAL_WORLD_SIZE", size))
    )
    return _checked(rank, size, local_rank, local_size, *_master(environment, "127.0.0.1", 29500))


def _slurm(environment: Mapping[str, str]) -> World | None:
    """A task of `srun`; the script that `sbatch` runs is none (slurm.schedmd.com/srun.html, output environment)."""
    if "SLURM_STEP_NUM_TASKS" not in environment or "SLURM_PROCID" not in environment:
        return None
    shares_cores = "SLURM_CPUS_PER_TASK" not in environment
    each = tasks_of_nodes(environment.get("SLURM_STEP_TASKS_PER_NODE", environment["SLURM_STEP_NUM_TASKS"]))
    node = _number(environment, "SLURM_NODEID", 0)
    port = SLURM_PORTS + (_number(environment, "SLURM_JOB_ID", 0) + _number(environment, "SLURM_STEP_ID", 0)) % 4096
    address = first_host(environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_JOB_NODELIST", "127.0.0.1")))
    return _checked(
        _number(environment, "SLURM_PROCID"),
        _number(environment, "SLURM_STEP_NUM_TASKS"),
        _number(environment, "SLURM_LOCALID", 0),
        each[node] if node < len(each) else 1,
        *_master(environment, address, port),
        shares_cores,
    )


def _tpu_pod(environment: Mapping[str, str]) -> World | None:
    """A host of a TPU pod: one process each, with all its chips. These variables are set by GKE."""
    hosts = [host for host in environment.get("TPU_WORKER_HOSTNAMES", "").split(",") if host]
    if len(hosts) < 2:
        return None
    return _checked(_number(environment, "TPU_WORKER_ID"), len(hosts), 0, 1, *_master(environment, hosts[0], TPU_PORT))


def tasks_of_nodes(text: str) -> list[int]:
    """SLURM's list of how many tasks each node has: `2(x3),1` → [2, 2, 2, 1]."""
    counts = [re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part) for part in text.split(",")]
    return [int(found[1]) for found in counts if found for _ in range(int(found[2] or 1))]


def first_host(nodes: str) -> str:
    """The first of SLURM's list of nodes: `gpu[03-04,7],login` → `gpu03`."""
    found = re.match(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\]([^,\[]*))?", nodes)
    return "".join(part or "" for part in found.groups()) if found else nodes


def _master(environment: Mapping[str, str], address: str, port: int) -> tuple[str, int]:
    return environment.get("MASTER_ADDR", address), _number(environment, "MASTER_PORT", port)


def _checked(
    rank: int, size: int, local_rank: int, local_size: int, address: str, port: int, shares_cores: bool = True
) -> World:
    if not 0 <= rank < size or not 0 <= local_rank < local_size:
        raise ConfigError(
            f"the launcher's variables contradict each other: rank {rank} of {size} processes, {local_rank} of "
            f"{local_size} on this machine; start all of them by one launcher (torchrun, srun), or by none"
        )
    return World(rank, size, local_rank, local_size, address, port, shares_cores)


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, default)
    try:
        return int(str(text))
    except ValueError:
        raise ConfigError(f"the environment variable {name} is {text!r}; the launcher sets a number there") from None
