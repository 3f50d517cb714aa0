"""The step of a mesh of TPUs or GPUs, lowered here for their platform: jax refuses there what it would on them.

It is not compiled, which needs the device. Kernels are in it, so that what they ask of the mesh is tried too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backends.team import Team
from tests.backends.test_jax_devices import start
from tunix_rt.backends.interface import TrainingSetup
from tunix_rt.backends.processes.world import World
from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import BackendConfig, HardwareConfig, MeshConfig
from tunix_rt.config.model import ScratchModel
from tunix_rt.models.initialise import write_fresh

WIDE_HEADS = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "head_dim": 128,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
KERNELS = {"tpu": "tpu_custom_call", "cuda": "__gpu$xla.gpu.triton"}


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    found = Team(1, "jax")
    found(start, 4)
    yield found
    found.close()


def lowered(world: World, folder: Path, setup: TrainingSetup, platform: str, mesh: tuple[int, int, int]) -> str:
    """The program of a step's gradients for a platform, as text."""
    import jax

    from tunix_rt.backends.jax import backend, step

    data, shard, tensor = mesh
    axes = MeshConfig(data=data, shard=shard, tensor=tensor)
    hardware = HardwareConfig(platform="cpu", devices=data * shard * tensor, mesh=axes, threads=1)
    made = backend.create(BackendConfig(name="jax", precision="bfloat16"), hardware, folder / "cache", world)
    state = made.load(folder, setup)
    length = 2048
    ones = np.ones((4, length), np.int32)
    positions = np.tile(np.arange(length, dtype=np.int32), (4, 1))
    batch = Batch.supervised(ones, ones, positions, ones, ones.astype(np.float32))
    given: list[Any] = []
    program, default = step.gradients, jax.default_backend
    jax.default_backend = lambda: {"tpu": "tpu", "cuda": "gpu"}[platform]
    backend.gradients = lambda *arguments: given.append(arguments) or 1 / 0
    try:
        made.train_step(state, batch, 1e-3)
    except ZeroDivisionError:
        text: str = program.trace(*given[0]).lower(lowering_platforms=(platform,)).as_text()
        return text
    finally:
        jax.default_backend, backend.gradients = default, program
    raise AssertionError("no program was asked for")


@pytest.mark.parametrize(
    ("platform", "mesh"), [("tpu", (2, 2, 1)), ("tpu", (1, 1, 1)), ("cuda", (1, 4, 1)), ("tpu", (1, 2, 2))]
)
def test_a_step_can_be_lowered_for_the_platform(
    platform: str, mesh: tuple[int, int, int], team: Team, adamw: Any, tmp_path: Path
) -> None:
    """With the platform's kernel for long rows, but where rows of devices along `tensor` are the compiler's."""
    source = ScratchModel(kind="scratch", config=WIDE_HEADS, initializer_range=0.02, scale_residual_init=False)
    write_fresh(tmp_path, source, 64, seed=0, pad_id=0, end_id=1)
    (text,) = team(lowered, tmp_path, TrainingSetup(adamw(), 1.0, 0), platform, mesh)
    assert (KERNELS[platform] in text) == (mesh[2] == 1)
