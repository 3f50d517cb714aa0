"""In bfloat16 both backends round in the same places, so that they agree far more closely than either with float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.backends.conftest import SHAPES, write_llama
from tests.families import CASES, write
from tests.parity.test_jax_torch import decoding
from tunix_rt.backends.interface import Backend
from tunix_rt.backends.registry import create
from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import BackendConfig, HardwareConfig

LENGTH, ROWS, VOCABULARY = 40, 6, 53
TOLERANCE = 2e-2


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights of ordinary size and wide ones; windows, caps and more norms."""
    made = {}
    for name, width in (("ordinary", 0.1), ("wide", 0.3)):
        shape = SHAPES["tied, grouped"] | {"initializer_range": width}
        made[name] = write_llama(tmp_path_factory.mktemp("llama"), **shape)
    return made | {"gemma2": write(tmp_path_factory.mktemp("gemma2"), CASES["gemma2"])}


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Rows of one trace each, so that transformers can read them too."""
    random = np.random.default_rng(0)
    tokens, targets = random.integers(4, VOCABULARY, (2, ROWS, LENGTH)).astype(np.int32)
    positions = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), tokens.shape).copy()
    ones = np.ones_like(tokens)
    return Batch.supervised(tokens, targets, positions, ones, ones.astype(np.float32))


@pytest.fixture(scope="module")
def both_halves(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Backend]:
    hardware, cache = HardwareConfig(platform="cpu", threads=1), tmp_path_factory.mktemp("cache")
    names: list[Any] = ["jax", "torch"]
    return {name: create(BackendConfig(name=name, precision="bfloat16"), hardware, cache) for name in names}


def transformers_scores(folder: Path, batch: Batch, half: bool) -> Any:
    """Log-probabilities by an independent implementation, in float32 or under autocast."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    tokens, targets = (torch.from_numpy(x).long() for x in (batch.tokens, batch.targets))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = model(tokens).logits.float()
    return logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0].numpy()


@pytest.mark.parametrize("name", ["ordinary", "wide", "gemma2"])
def test_log_probabilities(name: str, folders: dict[str, Path], batch: Batch, both_halves: dict[str, Backend]) -> None:
    """Within 2e-2 of each other, and as near to float32 as transformers is under autocast."""
    found = {
        key: backend.fetch(backend.logprobs(backend.load(folders[name], None), batch))["logprobs"]
        for key, backend in both_halves.items()
    }
    exact, theirs = (transformers_scores(folders[name], batch, half) for half in (False, True))

    def apart(values: Any) -> float:
        return float(np.sqrt(np.mean((values - exact) ** 2)))

    assert np.abs(found["jax"] - found["torch"]).max() < TOLERANCE
    for key in found:
        assert 1e-4 < apart(found[key]) < 1.1 * apart(theirs), key
    if name == "ordinary":
        assert all(np.abs(values - exact).max() < TOLERANCE for values in found.values())


def test_generation(folders: dict[str, Path], batch: Batch, both_halves: dict[str, Backend]) -> None:
    """The cached path: the same greedy text with wide weights, and the same log-probabilities."""
    generation = decoding(max_new_tokens=12)
    prompts, made = [row[:9] for row in batch.tokens[:4]], {}
    for key, backend in both_halves.items():
        state = backend.load(folders["wide"], None)
        pieces = list(backend.generate(state, prompts, generation, [0] * 4))
        made[key] = [
            [np.concatenate([getattr(piece, field) for piece in pieces if piece.index == index]) for index in range(4)]
            for field in ("ids", "logprobs")
        ]
    for one, other in zip(*(made[key][0] for key in made), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(*(made[key][1] for key in made), strict=True):
        np.testing.assert_allclose(one, other, atol=TOLERANCE)
    assert sum(len(ids) for ids in made["torch"][0]) > 20
