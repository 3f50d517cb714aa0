"""A measured second: training steps of the declared shapes on a model of zeros, by the real backend."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tunix_rt.backends.interface import AdapterSetup, Backend, TrainingSetup
from tunix_rt.models.adapter_folder import Base
from tunix_rt.models.folder import GENERATION, read_config
from tunix_rt.models.zero_weights import write_zero_weights
from tunix_rt.plan.outline import Outline

SECONDS = 1.0
"""How long steps are done at least."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was done in that second."""

    num_steps: int
    seconds: float

    @property
    def seconds_per_step(self) -> float:
        """Of the clock."""
        return self.seconds / self.num_steps


def measure(engine: Backend, outline: Outline) -> Measured:
    """Train on the first batches for a second, after a first round in which programs are compiled.

    Raises OutOfMemory where the estimate was wrong.
    """
    config, batches = outline.config, outline.work.batches
    start = outline.prepared.model_folder
    with tempfile.TemporaryDirectory(prefix="tunix_rt-zero-weights-") as place:
        folder = Path(place)
        write_zero_weights(folder, read_config(start) | {"dtype": "float32"})
        if (start / GENERATION).exists():
            shutil.copyfile(start / GENERATION, folder / GENERATION)
        adapter = config.model.adapter
        lora = None if adapter is None else AdapterSetup(adapter, Base(None, None, None))
        setup = TrainingSetup(config.optimizer, config.training.clip_norm, config.training.seed, lora)
        state = engine.load(folder, setup)
        state, first = engine.train_step(state, batches[0], 0.0)
        engine.fetch(first)
        num_steps, started = 0, time.monotonic()
        while num_steps == 0 or time.monotonic() - started < SECONDS:
            state, measured = engine.train_step(state, batches[0], 0.0)
            engine.fetch(measured)
            num_steps += 1
        return Measured(num_steps, time.monotonic() - started)
