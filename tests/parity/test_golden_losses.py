"""The first 20 losses of the quickstart on each backend are golden: a change in any numeric shows in the diff.

`python -m tests.parity.test_golden_losses` writes them anew.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT, config_of
from tunix_rt.backends.interface import TrainingSetup
from tunix_rt.backends.registry import create
from tunix_rt.batches.schedule import batch_schedule
from tunix_rt.inputs import write_prepared
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.training.schedule import learning_rate

NUM_STEPS = 20
BACKENDS = ("jax", "torch")


def golden(backend: str) -> Path:
    return ROOT / "tests" / "golden" / "losses" / f"quickstart_{backend}.json"


def first_losses(backend: str, folder: Path) -> list[float]:
    """Losses of the quickstart's first updates, as `metrics.jsonl` has them."""
    config = config_of([f"backend={backend}", "hardware=cpu", "hardware.threads=1"])
    data = folder / "data"
    write_prepared(config, data, None)
    order, facts = batch_schedule(config.training, PreparedData(data))
    engine = create(config.backend, config.hardware, folder / "cache")
    setup = TrainingSetup(config.optimizer, config.training.clip_norm, config.training.seed)
    state, losses = engine.load(PreparedData(data).model_folder, setup), []
    for step in range(1, NUM_STEPS + 1):
        rate = learning_rate(config.schedule, config.optimizer.learning_rate, step, facts["num_steps"])
        batch = order.batch_at(step - 1)
        state, measurements = engine.train_step(state, batch, rate)
        losses.append(float(engine.fetch(measurements)["loss_sum"]) / batch.divisor)
    return losses


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_losses_are_the_golden_ones(backend: str, tmp_path: Path) -> None:
    expected = json.loads(golden(backend).read_text("utf-8"))
    assert len(expected) == NUM_STEPS
    np.testing.assert_allclose(first_losses(backend, tmp_path), expected, rtol=1e-4)


def test_both_backends_have_the_same_golden_losses() -> None:
    both = [json.loads(golden(backend).read_text("utf-8")) for backend in BACKENDS]
    np.testing.assert_allclose(both[0], both[1], rtol=1e-4)


if __name__ == "__main__":
    for name in BACKENDS:
        with tempfile.TemporaryDirectory() as place:
            golden(name).write_text(json.dumps(first_losses(name, Path(place)), indent=1) + "\n", "utf-8")
