"""Laps of training on one device, for whichever code `tunix_rt` is: run as a file with PYTHONPATH naming a checkout.

`python one_device.py BACKEND MODEL ROWS LENGTH STEPS` reads a line for each lap from stdin, does it, and prints its
CPU-seconds and its last loss as JSON. Imports nothing else of this folder: an older checkout has its own.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tunix_rt.backends import heap, registry
from tunix_rt.backends.interface import TrainingSetup
from tunix_rt.batches.batch import Batch
from tunix_rt.config.load import check, compose
from tunix_rt.machine import cache_folder


def batch(rows: int, length: int, folded: bool, step: int) -> Batch:
    """Rows of random tokens, each of one trace; `folded`: as one micro-batch, for code from before `Fold`."""
    ids = np.random.default_rng(step).integers(2, 256, (rows, length + 1), dtype=np.int32)
    ones = np.ones((rows, length), np.int32)
    arrays: list[Any] = [ids[:, :-1], ids[:, 1:], np.tile(np.arange(length, dtype=np.int32), (rows, 1)), ones]
    arrays.append(ones.astype(np.float32))
    return Batch.supervised(*(np.ascontiguousarray(array[None] if folded else array) for array in arrays))


def main(backend: str, model: str, rows: int, length: int, steps: int) -> None:
    """Answer each line of stdin with a lap."""
    heap.own_process()
    config = check(compose(("name=laps", f"backend={backend}", "hardware=cpu", "hardware.threads=1", "tracking=none")))
    engine = registry.create(config.backend, config.hardware, cache_folder())
    state = engine.load(Path(model), TrainingSetup(config.optimizer, config.training.clip_norm, 0))
    folded = not hasattr(config.hardware, "devices")
    batches = [batch(rows, length, folded, step) for step in range(steps)]
    for _ in sys.stdin:
        started, found = time.process_time(), {}
        for one in batches:
            state, measured = engine.train_step(state, one, 1e-4)
            found = engine.fetch(measured)
        lap = {"cpu": time.process_time() - started, "loss": float(found["loss_sum"])}
        print(json.dumps(lap), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
