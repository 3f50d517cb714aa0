"""The quickstart from the command line, as declared, at toy size; what it left is read by another backend."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import TOY
from tests.parity.test_golden_losses import first_losses, golden
from tests.tunix.conftest import write
from tunix_rt.backends.interface import Backend
from tunix_rt.batches.batch import Batch
from tunix_rt.traces.prediction import read_predictions


@pytest.mark.slow
def test_the_first_losses_of_the_quickstart_are_the_golden_ones(tmp_path: Path) -> None:
    """20 updates as declared, packed and clipped: those of the other backends, to 1e-4."""
    expected = json.loads(golden("jax").read_text("utf-8"))
    np.testing.assert_allclose(first_losses("tunix", tmp_path), expected, rtol=1e-4)


def starts(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`python -m tunix_rt` in a folder of its own."""
    command = [sys.executable, "-m", "tunix_rt", "+experiment=quickstart", "backend=tunix", *TOY, *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_one_command_and_its_model_on_the_jax_backend(both: dict[str, Backend], tmp_path: Path) -> None:
    done = starts(tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = (path.parent for path in tmp_path.glob("runs/*/*/metrics.json"))
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [line["step"] for line in log if "train/loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in log if "eval/loss" in line] == [3, 6]
    environment = json.loads((run / "environment.json").read_text("utf-8"))
    assert environment["backend"]["google-tunix"] == environment["packages"]["google-tunix"] == "0.1.7"
    predictions = list(read_predictions(run / "predictions.jsonl"))
    assert len(predictions) == 4 and not any(prediction.error for prediction in predictions)
    logprobs = {}
    for name, backend in both.items():
        state = backend.load(run / "model", None)
        logprobs[name] = backend.fetch(backend.logprobs(state, packed()))["logprobs"]
    np.testing.assert_allclose(logprobs["tunix"], logprobs["jax"], atol=2e-4)


def packed() -> Batch:
    """A row of random tokens in two traces."""
    random = np.random.default_rng(0)
    tokens, targets = (random.integers(2, 14, (1, 12)).astype(np.int32) for _ in range(2))
    segments = np.repeat(np.array([1, 2], np.int32), 6).reshape(1, 12)
    positions = np.tile(np.arange(6, dtype=np.int32), 2).reshape(1, 12)
    return Batch.supervised(tokens, targets, positions, segments, np.ones((1, 12), np.float32))


def test_what_it_cannot_is_said_before_anything_starts(tmp_path: Path) -> None:
    done = starts(tmp_path, "generation=sample", "model/adapter=lora")
    assert done.returncode == 2
    for said in ("generation.batch_size=1", "model/adapter=none", "backend=jax"):
        assert said in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_family_of_a_folder_is_known_before_anything_is_prepared(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", model_type="olmo2")
    done = starts(tmp_path, "model=from_path", f"model.source.path={folder}", "tokenizer=pretrained")
    assert done.returncode == 2
    assert "holds a model of the family 'olmo2', which backend 'tunix' does not compute" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
