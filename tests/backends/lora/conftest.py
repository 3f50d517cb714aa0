"""Both backends, models with adapters on them, and what plain `transformers` and `peft` say of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.backends.conftest import Traces
from tests.families import CASES, write
from tunix_rt.backends.interface import AdapterSetup, Backend, TrainingSetup
from tunix_rt.backends.registry import create
from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.model import LoraAdapter
from tunix_rt.models.adapter_folder import Base
from tunix_rt.models.content import folder_digest

NAMES = ("jax", "torch")
SOME = {"llama": "all-linear", "gpt2": ("c_attn", "mlp.c_proj")}
"""Family → target: three pieces that lie in one part, and matrices that lie transposed and fused, not all of them."""
Both = dict[str, Backend]


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Both backends, float32, one thread."""
    cache = tmp_path_factory.mktemp("compiled")
    hardware = HardwareConfig(platform="cpu", threads=1)
    return {name: create(BackendConfig(name=name, precision="float32"), hardware, cache) for name in NAMES}


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each of SOME, of two layers."""
    two = {"llama": {"num_hidden_layers": 2}, "gpt2": {"n_layer": 2}}
    cases = {name: replace(CASES[name], changes=CASES[name].changes | two[name]) for name in SOME}
    return {name: write(tmp_path_factory.mktemp("base"), case) for name, case in cases.items()}


@pytest.fixture(scope="module", params=SOME)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def batch(traces: Traces, batch_of: Any) -> Batch:
    """Four packed rows."""
    built: Batch = batch_of([traces[0:2], traces[2:4], traces[4:6], traces[6:8]], 40)
    return built


def lora(**changes: Any) -> LoraAdapter:
    values: dict[str, Any] = {"kind": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.0, "target": "all-linear"}
    return LoraAdapter(**(values | {"rslora": False, "path": None} | changes))


@pytest.fixture(scope="session")
def setup_of(adamw: Callable[..., Any]) -> Callable[..., TrainingSetup]:
    """(base folder, changes of the adapter) → what training is told; without clipping."""

    def build(base: Path, **changes: Any) -> TrainingSetup:
        return TrainingSetup(adamw(), None, 7, AdapterSetup(lora(**changes), Base.of(base, folder_digest(base))))

    return build


def trained(backend: Backend, state: Any, batch: Batch, steps: int, folder: Path) -> tuple[list[float], Path]:
    """Losses of a few updates, and where their state was saved."""
    losses = []
    for _ in range(steps):
        state, measured = backend.train_step(state, batch, 1e-2)
        losses.append(float(backend.fetch(measured)["loss_sum"]) / batch.divisor)
    folder.mkdir(parents=True)
    backend.save(state, folder).result()
    return losses, folder


def opened(base: Path) -> Any:
    """The model as plain `transformers` opens it."""
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager").eval()


def with_peft(base: Path, adapter: Path) -> Any:
    """The model as plain `peft` opens it."""
    import peft

    return peft.PeftModel.from_pretrained(opened(base), adapter).eval()


def reference(model: Any, batch: Batch) -> Any:
    """Log-probabilities of the targets of the first trace of each row, by transformers."""
    found = []
    for tokens, targets, segments in zip(
        *(x.reshape(-1, 40) for x in (batch.tokens, batch.targets, batch.segments)), strict=True
    ):
        first = segments == 1
        with torch.no_grad():
            logits = model(input_ids=torch.tensor(tokens[first][None], dtype=torch.long)).logits[0].log_softmax(-1)
        found.append(logits.gather(-1, torch.tensor(targets[first], dtype=torch.long)[:, None])[:, 0].numpy())
    return np.concatenate(found)


def ours(backend: Backend, base: Path, adapter: Path | None, batch: Batch) -> Any:
    """The same by us. (All adapters here have one scaling, 2, so that jax compiles once.)"""
    state = backend.load(base, None, adapter)
    whole = replace(batch, weights=(batch.segments > 0).astype(np.float32))
    return backend.fetch(backend.logprobs(state, whole))["logprobs"][batch.segments == 1]


def relative(found: Any, expected: Any) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
