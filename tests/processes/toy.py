"""A job whose backend computes nothing: every process counts its calls, and one may go wrong. No framework is imported.

The processes are forked from one that has imported this module, with the variables of a launcher.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tunix_rt.__main__ import guarded
from tunix_rt.backends import registry
from tunix_rt.backends.interface import Piece, Placement
from tunix_rt.backends.processes import job
from tunix_rt.backends.processes.world import World
from tunix_rt.batches.batch import Batch
from tunix_rt.config.choices import BACKENDS, BackendFacts
from tunix_rt.config.execution import BackendConfig, HardwareConfig, MeshConfig
from tunix_rt.config.results import GenerationConfig
from tunix_rt.errors import OutOfMemory, RunError
from tunix_rt.runs import interrupt

BATCH = Batch.supervised(*(np.ones((2, 3), np.int32) for _ in range(4)), np.ones((2, 3), np.float32))
GENERATION = GenerationConfig(
    split="test",
    max_new_tokens=4,
    temperature=0.0,
    top_k=None,
    top_p=None,
    num_return_sequences=1,
    batch_size=2,
    baseline=False,
    max_error_rate=0.0,
)


@dataclass
class State:
    steps: int


class Toy:
    """Implements `interface.Backend`, as far as it is used here."""

    def __init__(self, config: Any, hardware: Any, cache: Path, world: World) -> None:
        self.world, self.rows_at_once, self.folder = world, None, cache
        self.placement = Placement("cpu", ("cpu",), "float32", 1)

    def load(self, model_folder: Path, training: Any, adapter: Path | None = None, quantize: Any = None) -> State:
        if model_folder.name == "bad":
            raise RunError(f"rank {self.world.rank} does not like it")
        return State(0)

    def train_step(self, state: State, batch: Batch, learning_rate: float) -> tuple[State, dict[str, Any]]:
        """A learning rate is a rank that goes wrong, in the way of its sign."""
        assert batch.tokens.shape == (2, 3) and batch.divisor == 6.0
        (self.folder / f"{self.world.rank}.steps").write_text(str(state.steps + 1))
        if learning_rate == self.world.rank and learning_rate > 0:
            raise ValueError("a bug")
        if learning_rate == -self.world.rank and learning_rate < 0:
            raise OutOfMemory("memory is full: lower it")
        return State(state.steps + 1), {"loss_sum": state.steps}

    def fetch(self, measurements: dict[str, Any]) -> dict[str, Any]:
        return measurements

    def describe(self) -> dict[str, str]:
        return {}

    def generate(
        self, state: State, prompts: Sequence[Any], generation: GenerationConfig, seeds: Sequence[int]
    ) -> Iterator[Piece]:
        for index in range(self.world.rank, len(prompts), self.world.size):
            ids = np.array([index, seeds[index] % 97, self.rows_at_once or 0], np.int32)
            yield Piece(index, ids, np.full(3, -0.1, np.float32), "stop")

    def save(self, state: State, folder: Path, max_shard_size: int = 0) -> Future[dict[str, str]]:
        done: Future[dict[str, str]] = Future()
        (folder / f"{self.world.rank}.saved").write_text(str(state.steps))
        done.set_result({f"{self.world.rank}.saved": "hash"})
        return done


def create(folder: Path) -> Any:
    hardware = HardwareConfig(
        platform="cpu",
        devices=1,
        mesh=MeshConfig(data=-1, shard=1, tensor=1),
        local_batch_size="auto",
        threads=1,
    )
    return registry.create(BackendConfig(name="toy", precision="float32"), hardware, folder)  # type: ignore[arg-type]


def all_methods(folder: Path) -> int:
    backend = create(folder)
    backend.rows_at_once = 5
    state = backend.load(folder, None)
    for _ in range(3):
        state, measured = backend.train_step(state, BATCH, 0.5)
    prompts = [np.arange(1, 2 + number, dtype=np.int32) for number in range(5)]
    seeds = [2**63 + number for number in range(5)]
    pieces = {piece.index: piece for piece in backend.generate(state, prompts, GENERATION, seeds)}
    saved = backend.save(state, folder).result()
    print(backend.fetch(measured), [pieces[n].ids.tolist() for n in range(5)], pieces[4].finish_reason, saved)
    return 0


def all_fail_alike(folder: Path) -> int:
    """An error of every process is no failure of one: the job goes on."""
    backend = create(folder)
    for _ in range(2):
        try:
            backend.load(folder / "bad", None)
        except RunError as error:
            print(error)
    backend.save(backend.load(folder, None), folder).result()
    return 0


def steps(folder: Path, rate: float = 0.5) -> int:
    """As a training loop: a signal is answered between two steps, and then saves."""
    with interrupt.watching(folder) as asked:
        asked.last_words = lambda error: (folder / "words").write_text(str(error)) and None
        backend = create(folder)
        state = backend.load(folder, None)
        print("begun", flush=True)
        for step in range(400):
            state, _ = backend.train_step(state, BATCH, rate if step > 2 else 0.5)
            if asked.received is not None:
                time.sleep(1.0)  # the step goes on, and copies of the signal come
                backend.save(state, folder).result()
            asked.check(f"after step {step}, which is saved")
            time.sleep(0.05)
    return 0


def waits(folder: Path) -> int:
    """As at the beginning of a session, where a signal may end the work anywhere."""
    with interrupt.watching(folder) as asked, asked.at_once("before its first stage"):
        print("begun", flush=True)
        create(folder)
    return 0


def stuck(folder: Path) -> int:
    """As in a collective that waits for a process that is gone: no signal is handled."""
    with interrupt.watching(folder) as asked:
        asked.last_words = lambda error: (folder / "words").write_text(str(error)) and None
        backend = create(folder)
        state = backend.load(folder, None)
        backend._local.train_step = lambda *_: hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
        backend.train_step(state, BATCH, 1.0)
    return 0


WORKS: dict[str, Any] = {
    "all_methods": all_methods,
    "all_fail_alike": all_fail_alike,
    "steps": steps,
    "bug": lambda folder: steps(folder, 1.0),
    "memory": lambda folder: steps(folder, -1.0),
    "waits": waits,
    "stuck": stuck,
    "nothing": lambda folder: 7,
}


def main(environment: dict[str, str], work: str, folder: Path) -> None:
    """One process; what it prints is in `RANK.out` and `RANK.err`."""
    os.environ |= environment
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"{environment['RANK']}.{name}", os.O_WRONLY | os.O_CREAT), descriptor)
    module = ModuleType("tunix_rt.backends.toy.backend")
    module.create = Toy  # type: ignore[attr-defined]
    module.leave = lambda: (folder / f"{environment['RANK']}.left").touch()  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    BACKENDS["toy"] = BackendFacts(package="numpy", extra="", platforms=("cpu",), process_per_device=True)
    job.STUCK = 1.0
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = guarded(lambda: int(WORKS[work](folder)), debug=False)
    sys.stdout.flush()
    os._exit(code)
