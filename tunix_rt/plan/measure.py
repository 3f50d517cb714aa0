"""Measures what does not follow from shapes: training steps on a model with zero weights, in a separate process.

The process holds what a run's would. It is killed when it exceeds its memory limit, so that nothing else on the machine
suffers, or when it takes too long.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import numpy as np
import psutil

from tunix_rt.backends import heap, registry
from tunix_rt.backends.interface import AdapterSetup, Backend, State, TrainingSetup
from tunix_rt.backends.memory import asked, largest_batch
from tunix_rt.backends.placement import first_device
from tunix_rt.batches.batch import Batch
from tunix_rt.config.choices import BACKENDS
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.errors import OutOfMemory, TunixError
from tunix_rt.machine import cache_folder
from tunix_rt.models.adapter_folder import Base
from tunix_rt.models.folder import GENERATION, read_config
from tunix_rt.models.initialise import write_zero_weights
from tunix_rt.plan.outline import Outline
from tunix_rt.plan.updates import Updates
from tunix_rt.rollouts.sample import decoding

SECONDS = 1.0
"""Least duration of the measured steps, after compilation."""
LONGEST = 120.0
"""Seconds after which the process is killed in any case."""
GLANCE = 0.05
"""Seconds between two checks of its memory."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the process did, and how it ended."""

    ended: Literal["done", "out of memory", "out of time"]
    num_steps: int = 0
    seconds: float = 0.0
    """Wall time of those steps, with all that is computed for each."""
    peak: int = 0
    """Peak memory of one device in bytes: on the CPU its part of the process, else that on the device."""

    rows_at_once: int | None = None
    """Rows of a device at once, at the end: fewer than planned if they were too many."""

    @property
    def seconds_per_step(self) -> float | None:
        """None if no step was finished."""
        return self.seconds / self.num_steps if self.num_steps else None


@dataclass(frozen=True, slots=True)
class _Work:
    """What the process does again and again."""

    batch: Batch
    rows_at_once: int | None
    updates: Updates

    @classmethod
    def of(cls, outline: Outline) -> _Work:
        """The largest step of an experiment."""
        return cls(largest_batch(outline.query), outline.query.rows_at_once, outline.updates)


Measure = Callable[[Outline, int], Measured]
"""Trains on the batch with the most targets, in a process limited, with those it starts, to so many bytes.

Raises TunixError from it.
"""


@contextmanager
def measuring(config: ExperimentConfig) -> Iterator[Measure]:
    """Start the process, which imports the framework while the caller finds out what is to be measured."""
    context = get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_serve, args=(its, config))
    process.start()
    its.close()
    try:
        assert process.pid is not None, "it has been started"
        yield partial(_measured, process.pid, ours)
    finally:
        process.kill()
        process.join()
        ours.close()


def _measured(pid: int, process: Connection, outline: Outline, limit: int) -> Measured:
    number, peak, deadline = outline.query.mesh.size, 0, time.monotonic() + LONGEST
    try:
        process.send((outline.prepared.model_folder, _Work.of(outline)))
        watched = psutil.Process(pid)
        while not process.poll(GLANCE):
            peak = max(peak, _resident(watched))
            if peak > limit:
                return Measured("out of memory", peak=peak // number)
            if time.monotonic() > deadline:
                return Measured("out of time", peak=peak // number)
        found = process.recv()
    except (EOFError, BrokenPipeError, psutil.NoSuchProcess):  # the kernel killed it first
        return Measured("out of memory", peak=peak // number)
    if isinstance(found, OutOfMemory):
        return Measured("out of memory", peak=peak // number)
    if isinstance(found, TunixError):
        raise found
    assert isinstance(found, Measured)
    return found


def _resident(process: psutil.Process) -> int:
    """Bytes of a process and of those that it has started. Raises psutil.NoSuchProcess if it is gone."""
    total = int(process.memory_info().rss)
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            total += int(child.memory_info().rss)
    return total


def _serve(asked: Connection, config: ExperimentConfig) -> None:
    heap.own_process()
    registry.import_backend(config.backend.name)
    try:
        model_folder, work = asked.recv()
    except EOFError:
        return
    try:
        asked.send(_train(config, model_folder, work))
    except TunixError as error:
        asked.send(error)


def _train(config: ExperimentConfig, model_folder: Path, work: _Work) -> Measured:
    adapter, updates = config.model.adapter, work.updates
    engine = registry.create(config.backend, config.hardware, cache_folder())
    engine.rows_at_once = work.rows_at_once
    with tempfile.TemporaryDirectory(prefix="tunix_rt-zeros-") as place:
        folder = Path(place)
        write_zero_weights(folder, read_config(model_folder) | {"dtype": "float32"})
        if (model_folder / GENERATION).exists():
            shutil.copyfile(model_folder / GENERATION, folder / GENERATION)
        setup_adapter = None if adapter is None else AdapterSetup(adapter, Base(None, None, None))
        setup = TrainingSetup(config.optimizer, config.training.clip_norm, config.training.seed, setup_adapter)
        state = engine.load(folder, setup)
        beside = engine.load(folder, None) if updates.keeps_reference else None
        state = _step(engine, state, work)
        _sample(engine, state, updates)
        num_steps, started = 0, time.monotonic()
        while num_steps == 0 or time.monotonic() - started < SECONDS:
            state = _step(engine, state, work)
            num_steps += 1
        seconds = time.monotonic() - started
        started = time.monotonic()
        _sample(engine, state, updates)
        seconds += (time.monotonic() - started) * updates.rollouts_per_step * num_steps
        del beside
    on_device = asked(config.backend.name, "peak_memory") if engine.placement.platform != "cpu" else None
    own = 1 if BACKENDS[config.backend.name].process_per_device else engine.placement.mesh.size
    peak = _peak() // own if on_device is None else on_device(first_device(config.hardware))
    return Measured("done", num_steps, seconds, peak, engine.rows_at_once)


def _step(engine: Backend, state: State, work: _Work) -> State:
    """An update, and the forward passes that it needs."""
    for _ in range(work.updates.num_passes):
        engine.fetch(engine.logprobs(state, work.batch))
    state, measured = engine.train_step(state, work.batch, 0.0)
    engine.fetch(measured)
    return state


def _sample(engine: Backend, state: State, updates: Updates) -> None:
    """Answers to as many prompts as are answered together. A model of zeros hardly ever stops."""
    load = updates.sampled
    if load is not None:
        prompts = [np.zeros(load.longest_prompt, np.int32)] * load.num_prompts
        deque(
            engine.generate(
                state, prompts, decoding(load.max_new_tokens, 1, load.num_prompts), range(load.num_prompts)
            ),
            0,
        )


def _peak() -> int:
    """Peak resident memory of this process, bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # does not include a parent's memory, as getrusage does
        lines = dict(line.split(":", 1) for line in status.read_text("utf-8").splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
