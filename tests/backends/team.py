"""Processes of one job that all call the same functions; and what a training run gives on them."""

from __future__ import annotations

import importlib
import math
import multiprocessing
import socket
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from tunix_rt.backends.interface import TrainingSetup
from tunix_rt.backends.processes.world import World
from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import BackendConfig, HardwareConfig, MeshConfig
from tunix_rt.config.results import GenerationConfig
from tunix_rt.models.folder import Weights

TIMEOUT = 120
"""Seconds that a call may take."""


class Team:
    """Processes that wait for calls. They are forked from one that has imported the framework."""

    def __init__(self, size: int, framework: str = "torch") -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.backends.team", f"tunix_rt.backends.{framework}.backend"])
        self._ends, self._processes = [], []
        port = _free_port()
        for rank in range(size):
            here, there = context.Pipe()
            world = World(rank, size, rank, size, "127.0.0.1", port)
            process = context.Process(target=_serve, args=(world, there), daemon=True)
            process.start()
            self._ends.append(here)
            self._processes.append(process)

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What `function(world, *arguments)` returns in each process, by rank."""
        for end in self._ends:
            end.send((function, arguments))
        found = []
        for rank, end in enumerate(self._ends):
            assert end.poll(TIMEOUT), f"rank {rank} does not answer"
            found.append(end.recv())
        failed = [failure for failure, _ in found if failure is not None]
        assert not failed, failed[0]
        return [result for _, result in found]

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


def _serve(world: World, end: Any) -> None:
    while True:
        function, arguments = end.recv()
        try:
            end.send((None, function(world, *arguments)))
        except BaseException:
            end.send((traceback.format_exc(), None))


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@dataclass(frozen=True)
class Job:
    """A short training run, and what is asked of its model."""

    folder: Path
    training: TrainingSetup
    batches: Sequence[Batch]
    prompts: Sequence[Any] = ()
    generation: GenerationConfig | None = None
    rows_at_once: int | None = None
    precision: Any = "float32"
    gradient_checkpointing: bool = False
    backend: Any = "torch"


@dataclass(frozen=True)
class Result:
    """What one process sees."""

    losses: list[float]
    norms: list[float]
    logprobs: Any
    answers: dict[int, list[int]]
    placement: Any
    saved: dict[str, str]


def run(world: World, job: Job, mesh: tuple[int, int, int], out: Path, restored: Path | None = None) -> Result:
    """Train and ask; the model is saved in `out`."""
    create = importlib.import_module(f"tunix_rt.backends.{job.backend}.backend").create
    hardware = HardwareConfig(
        platform="cpu",
        devices=math.prod(mesh),
        mesh=MeshConfig(data=mesh[0], shard=mesh[1], tensor=mesh[2]),
        local_batch_size=job.rows_at_once or "auto",
        threads=1,
    )
    config = BackendConfig(name=job.backend, precision=job.precision, gradient_checkpointing=job.gradient_checkpointing)
    backend = create(config, hardware, out, world)
    if restored is None:
        state = backend.load(job.folder, job.training)
    else:
        state = backend.restore(restored, job.folder, job.training)
    losses, norms = [], []
    for batch in job.batches:
        state, measured = backend.train_step(state, batch, 1e-2)
        found = backend.fetch(measured)
        losses.append(float(found["loss_sum"]) / batch.divisor)
        norms.append(float(found["grad_norm"]))
    logprobs = backend.fetch(backend.logprobs(state, job.batches[0]))["logprobs"]
    answers: dict[int, list[int]] = {}
    if job.generation is not None:
        for piece in backend.generate(state, job.prompts, job.generation, range(len(job.prompts))):
            answers.setdefault(piece.index, []).extend(piece.ids.tolist())
    out.mkdir(exist_ok=True)
    saved = backend.save(state, out).result()
    return Result(losses, norms, logprobs, answers, backend.placement, saved)


def weights_in(folder: Path) -> Weights:
    """What `run` saved."""
    found = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    return {name: value for tensors in found for name, value in tensors.items()}
