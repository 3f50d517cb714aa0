"""The torch backend from outside: what it finds, what it imports, what it says of full memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tunix_rt.backends.interface import Backend
from tunix_rt.backends.registry import create
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.machine import usable_cores


def make(cache: Path, **hardware: Any) -> Backend:
    chosen = HardwareConfig(**({"platform": "cpu", "threads": 1} | hardware))
    return create(BackendConfig(name="torch", precision="float32"), chosen, cache)


def test_placement_says_what_was_found(tmp_path: Path) -> None:

    found = make(tmp_path, platform="cpu", threads="auto").placement
    assert (found.platform, found.precision) == ("cpu", "float32")
    assert found.threads == usable_cores()
    assert make(tmp_path, platform="auto").placement.platform in ("cpu", "gpu")
    assert make(tmp_path, threads=1).describe()["torch"] == torch.__version__


TRAIN_AND_ANSWER = """
import sys
import numpy as np
from pathlib import Path
from tunix_rt.backends.interface import TrainingSetup
from tunix_rt.backends.registry import create
from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.machine import usable_cores
from tunix_rt.config.results import GenerationConfig
from tunix_rt.config.optimizers import AdamWConfig
from tunix_rt.errors import OutOfMemory

def batch(rows, length):
    ids = np.ones((rows, length), np.int32)
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), ids.shape)
    return Batch.supervised(ids, ids, positions, ids, ids.astype(np.float32))

def decoding(rows):
    return GenerationConfig(
        split="test", max_new_tokens=4, temperature=0.0, top_k=None, top_p=None, num_return_sequences=1,
        batch_size=rows, baseline=False, max_error_rate=0.0,
    )

hardware = HardwareConfig(platform="cpu", threads=1, local_batch_size=20_000)
backend = create(BackendConfig(name="torch", precision="float32"), hardware, Path())
optimizer = AdamWConfig(
    kind="adamw", learning_rate=1e-3, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.1, no_decay=()
)
state = backend.load(Path(sys.argv[1]), TrainingSetup(optimizer, clip_norm=1.0, seed=0))
state, measured = backend.train_step(state, batch(2, 8), 1e-3)
assert backend.fetch(measured)["finite"]
pieces = list(backend.generate(state, [np.array([5], np.int32)], decoding(1), [0]))
assert pieces[-1].finish_reason is not None
"""


def run(code: str, folder: Path) -> None:
    """Run `code` in a fresh process with the folder as its argument; it must end well."""
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_other_framework_is_imported(small_llama: Path) -> None:
    """Nor what would only cost seconds at each start: transformers, and the compiler that torch.optim imports."""
    run(
        TRAIN_AND_ANSWER + "heavy = {'jax', 'flax', 'optax', 'transformers', 'torch._dynamo'} & set(sys.modules)\n"
        "assert not heavy, heavy\n",
        small_llama,
    )


ESTIMATE = """
from tunix_rt.backends.memory import MemoryQuery
from tunix_rt.backends.torch.memory import activations
from tunix_rt.models.folder import read_architecture

architecture, ours = read_architecture(Path(sys.argv[1])), BackendConfig(name="torch", precision="float32")
assert activations(MemoryQuery(architecture, None, None, ours, optimizer, (batch(2, 8),), None)) > 0
assert not [name for name in sys.modules if name.startswith("torch._dynamo")]
import torch
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)) == 2, "the compiler is there for whoever wants it"
"""


@pytest.mark.slow
def test_memory_is_estimated_without_the_compiler(small_llama: Path) -> None:
    """Prevents: `plan` waits for all of torch's compiler, of which fake tensors need the settings."""
    run(TRAIN_AND_ANSWER + ESTIMATE, small_llama)


@pytest.mark.parametrize(
    ("given", "kept"), [({}, ["PASSIVE", "1000"]), ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", None])]
)
def test_idle_threads_spin_briefly_unless_somebody_says_how_they_wait(
    given: dict[str, str], kept: list[str | None]
) -> None:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    code = f"import json, os, tunix_rt.backends.torch; print(json.dumps([os.getenv(name) for name in {names}]))"
    others = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run([sys.executable, "-c", code], env=others | given, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == kept


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on address space is Linux's")
@pytest.mark.slow
def test_full_memory_names_the_setting_to_lower(small_llama: Path) -> None:
    """A real allocation fails: the process may take 400 MB more than it has, and 100 for a cache."""
    run(
        TRAIN_AND_ANSWER
        + """
import resource

taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 400_000_000, resource.RLIM_INFINITY))
try:
    backend.train_step(state, batch(20_000, 96), 1e-3)
    raise AssertionError("no OutOfMemory in training")
except OutOfMemory as error:
    assert "hardware.local_batch_size" in str(error) and "20000 rows" in str(error), error
    assert "\\n" not in str(error), error
prompts = list(np.random.default_rng(0).integers(1, 50, (20_000, 90), np.int32))  # equal ones would be read once
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 100_000_000, resource.RLIM_INFINITY))
try:
    list(backend.generate(state, prompts, decoding(20_000), [0] * 20_000))
    raise AssertionError("no OutOfMemory in generation")
except OutOfMemory as error:
    assert "generation.batch_size" in str(error), error
""",
        small_llama,
    )
