"""The backend of a job of several processes, as the rest of the product sees it: one like any other.

Each call goes to every process, so that all make the same ones in the same order. What they measure is complete here.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunix_rt.backends.interface import Backend, ContinuousBatch, Measurements, Piece, TrainingSetup
from tunix_rt.backends.processes.calls import Call
from tunix_rt.backends.processes.job import Job
from tunix_rt.backends.processes.messages import Held
from tunix_rt.backends.waves import Waves
from tunix_rt.batches.batch import Batch
from tunix_rt.batches.encoded import Int32
from tunix_rt.config.choices import Quantization
from tunix_rt.config.results import GenerationConfig
from tunix_rt.models.shards import MAX_SHARD_SIZE, finish


@dataclass(slots=True, weakref_slot=True)
class State:
    """A state of this process, and the number of that of every other one."""

    local: Any
    held: Held


class Leader:
    """Implements `interface.Backend`; each method is documented there."""

    def __init__(self, local: Backend, held: Held, job: Job) -> None:
        """`local`: the backend of this process; `held`: the number by which the others know theirs."""
        self._local, self._held, self._job = local, held, job
        self._saving = ThreadPoolExecutor(max_workers=1, thread_name_prefix="saved everywhere")
        self.placement = local.placement
        weakref.finalize(self, job.drop, held.number)

    @property
    def rows_at_once(self) -> int | None:
        """Of a device; every process has the same."""
        return self._local.rows_at_once

    @rows_at_once.setter
    def rows_at_once(self, rows: int | None) -> None:
        self._call("set_rows_at_once", rows=rows)
        self._local.rows_at_once = rows

    def load(
        self,
        model_folder: Path,
        training: TrainingSetup | None,
        adapter: Path | None = None,
        quantize: Quantization | None = None,
    ) -> State:
        call = self._call("load", model_folder=model_folder, training=training, adapter=adapter, quantize=quantize)
        with self._job.together(call):
            return self._state(self._local.load(model_folder, training, adapter, quantize), call)

    def restore(self, folder: Path, model_folder: Path, training: TrainingSetup) -> State:
        call = self._call("restore", folder=folder, model_folder=model_folder, training=training)
        with self._job.together(call):
            return self._state(self._local.restore(folder, model_folder, training), call)

    def train_step(self, state: State, batch: Batch, learning_rate: float) -> tuple[State, Measurements]:
        call = self._call("train_step", state=state.held, batch=batch, learning_rate=learning_rate)
        with self._job.together(call):
            state.local, measured = self._local.train_step(state.local, batch, learning_rate)
        return state, measured

    def logprobs(self, state: State, batch: Batch, adapter: bool = True, top: int = 0) -> Measurements:
        call = self._call("logprobs", state=state.held, batch=batch, adapter=adapter, top=top)
        with self._job.together(call):
            return self._local.logprobs(state.local, batch, adapter, top)

    def fetch(self, measurements: Measurements) -> dict[str, np.ndarray[Any, Any]]:
        with self._job.together():
            return self._local.fetch(measurements)

    def generate(
        self, state: State, prompts: Sequence[Int32], generation: GenerationConfig, seeds: Sequence[int]
    ) -> Iterator[Piece]:
        asked = {"prompts": list(prompts), "generation": generation, "seeds": list(seeds)}
        call = self._call("generate", state=state.held, **asked)
        with self._job.together(call):
            for piece in self._local.generate(state.local, prompts, generation, seeds):
                yield piece
                yield from _arrived(call)
            while not call.done() or not call.pieces.empty():
                if (other := call.pieces.get()) is not None:
                    yield other
            for reply in call.replies.values():
                reply.result()

    def continuous(self, state: State, rows: int) -> ContinuousBatch:
        return Waves(self, state, rows)

    def save(self, state: State, folder: Path, max_shard_size: int = MAX_SHARD_SIZE) -> Future[dict[str, str]]:
        call = self._call("save", state=state.held, folder=folder, max_shard_size=max_shard_size)
        with self._job.together(call):
            own = self._local.save(state.local, folder, max_shard_size)
        return self._saving.submit(_saved, folder, own, call)

    def describe(self) -> dict[str, str]:
        return self._local.describe() | {"processes": str(self._job.world.size), "mesh": str(self.placement.mesh)}

    def _call(self, method: str, **arguments: Any) -> Call:
        return self._job.send(method, backend=self._held, **arguments)

    def _state(self, local: Any, call: Call) -> State:
        """The others know theirs by the number of the call that made it."""
        state = State(local, Held(call.number))
        weakref.finalize(state, self._job.drop, call.number)
        return state


def _arrived(call: Call) -> Iterator[Piece]:
    """What the others have sent meanwhile."""
    while not call.pieces.empty():
        if (piece := call.pieces.get()) is not None:
            yield piece


def _saved(folder: Path, own: Future[dict[str, str]], call: Call) -> dict[str, str]:
    """Once every process has written what it holds: the hashes of all files."""
    wait([own, *call.replies.values()])
    return finish(folder, [reply.result() for reply in (own, *call.replies.values())])
