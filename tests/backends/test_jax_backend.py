"""The jax backend from outside: deep models, what it finds, what it imports and keeps."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from safetensors.numpy import load_file

from tunix_rt.backends import xla
from tunix_rt.backends.interface import Backend, TrainingSetup
from tunix_rt.backends.registry import create
from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.errors import OutOfMemory

BatchOf = Callable[..., Batch]


def make(cache: Path, **hardware: Any) -> Backend:
    chosen = HardwareConfig(**({"platform": "cpu", "threads": "auto"} | hardware))
    return create(BackendConfig(name="jax", precision="float32"), chosen, cache)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    return make(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def setup(adamw: Any) -> TrainingSetup:
    return TrainingSetup(adamw(), clip_norm=1.0, seed=0)


def test_many_layers_are_one_loop_with_the_same_numbers(
    backend: Backend, small_llama: Path, traces: Any, batch_of: BatchOf, setup: TrainingSetup, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Deep models run one layer's program in a loop that computes some things twice: loss and moments agree."""
    from tunix_rt.backends.jax import decoder

    results = []
    for length, unrolled in ((48, 8), (50, 1)):  # a shape compiled before would not be compiled anew
        monkeypatch.setattr(decoder, "UNROLLED_LAYERS", unrolled)
        batch = batch_of([[traces[0], traces[1]], [traces[2]]], length)
        state, measured = backend.train_step(backend.load(small_llama, setup), batch, 1e-2)
        backend.save(state, tmp_path).result()
        results.append(load_file(tmp_path / "optimizer.safetensors") | backend.fetch(measured))
    for name in results[0].keys() - {"compiled"}:
        value = results[0][name]
        error = np.linalg.norm(results[1][name].astype(np.float64) - value)
        assert error <= 1e-5 * np.linalg.norm(value), name


def test_placement_says_what_was_found(tmp_path: Path) -> None:
    backend = make(tmp_path)
    found = backend.placement
    assert (found.platform, found.precision) == ("cpu", "float32")
    assert found.devices == ("cpu 0",)
    assert backend.describe()["jax"] == jax.__version__


def test_full_memory_names_the_setting_to_lower() -> None:
    """An allocation that really fails, in jax's own words, becomes one line."""
    with pytest.raises(OutOfMemory, match="lower the_setting") as raised, xla.memory_errors("the_setting"):
        jnp.zeros((1 << 46,), jnp.float32).block_until_ready()
    assert "\n" not in str(raised.value)


TRAIN_AND_ANSWER = """
import os, sys
import numpy as np
import psutil
from pathlib import Path
from tunix_rt.backends.interface import TrainingSetup
from tunix_rt.backends.registry import create
from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.results import GenerationConfig
from tunix_rt.config.optimizers import AdamWConfig

os.environ.pop("NPROC", None)
backend = create(
    BackendConfig(name="jax", precision="float32"), HardwareConfig(platform="auto", threads=3),
    Path(sys.argv[2]),
)
assert "NPROC" not in os.environ
optimizer = AdamWConfig(
    kind="adamw", learning_rate=1e-3, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.1, no_decay=()
)
state = backend.load(Path(sys.argv[1]), TrainingSetup(optimizer, clip_norm=1.0, seed=0))
ids = np.ones((2, 8), np.int32)
positions = np.broadcast_to(np.arange(8, dtype=np.int32), ids.shape)
batch = Batch.supervised(ids, ids, positions, ids, ids.astype(np.float32))
state, measured = backend.train_step(state, batch, 1e-3)
assert backend.fetch(measured)["finite"]
decoding = GenerationConfig(
    split="test", max_new_tokens=4, temperature=0.0, top_k=None, top_p=None, num_return_sequences=1,
    batch_size=1, baseline=False, max_error_rate=0.0,
)
assert list(backend.generate(state, [np.array([5], np.int32)], decoding, [0]))[-1].finish_reason is not None
heavy = {"torch", "transformers", "orbax.checkpoint"} & set(sys.modules)
assert not heavy, heavy
tasks = Path("/proc/self/task")
if tasks.is_dir():
    threads = [1 for task in tasks.iterdir() if (task / "comm").read_text().startswith("tf_XLAEigen")]
    assert len(threads) == backend.placement.threads == 3, threads
before = psutil.Process().memory_info().rss
mine = np.ones(2**25)
del mine
assert psutil.Process().memory_info().rss < before + 2**26, "the caller's allocator is no more what it was"
"""


@pytest.mark.slow
def test_a_fresh_process_imports_no_torch_and_keeps_its_programs(small_llama: Path, tmp_path: Path) -> None:
    """Twice the same process: threads as declared, compiled programs on disk, and the second compiles none of them.

    What the caller frees goes back to the system, as before: only `python -m tunix_rt` has the process to itself.
    It may add one that took just too little time to be kept before: its name is not among those of the first.
    """
    kept = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", TRAIN_AND_ANSWER, str(small_llama), str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"JAX_LOG_COMPILES": "0"},
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        kept.append({path.name for path in tmp_path.rglob("*-cache")})
    first, second = kept
    assert any("gradients" in name for name in first), first
    assert first <= second
    names = [name.split("-")[0] for name in second]
    assert len(names) == len(set(names)), "the second process compiled what the first had kept"
