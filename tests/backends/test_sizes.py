"""How many rows `auto` begins with: by what a backend keeps of rows of a length."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import config_of
from tunix_rt.backends import sizes
from tunix_rt.backends.memory import MemoryQuery
from tunix_rt.backends.mesh import MeshShape
from tunix_rt.models.families.registry import read, tensors_of
from tunix_rt.models.folder import read_architecture
from tunix_rt.models.initialise import write_fresh

SIZES = "hidden_size=1024 intermediate_size=4096 num_hidden_layers=1 num_attention_heads=16 num_key_value_heads=16"


def rows_of(backend: str, length: int, folder: Path) -> int:
    config = config_of([f"backend={backend}"])
    query = MemoryQuery(read_architecture(folder), None, None, config.backend, config.optimizer, (), None)
    return sizes.rows_that_fit(query, length, 10**6, 2**36)


def test_scores_count_as_far_as_a_backend_keeps_them(tmp_path: Path) -> None:
    words = (f"model.source.{size}" for size in (*SIZES.split(), "max_position_embeddings=4096"))
    write_fresh(tmp_path, config_of(list(words)).model.source, 61, 0, 0, 1)  # type: ignore[arg-type]
    for length in (2048, 4096):
        jax, torch = (rows_of(name, length, tmp_path) for name in ("jax", "torch"))
        assert torch / 2 <= jax <= torch, "long rows are attended without all of their scores"
    assert rows_of("jax", 1024, tmp_path) < rows_of("torch", 1024, tmp_path) / 2, "of short ones they are kept"
    assert rows_of("jax", 2048, tmp_path) > rows_of("jax", 1024, tmp_path) / 2


@pytest.mark.parametrize(("backend", "experts"), [("torch", 2), ("jax", 1)])
def test_a_device_holds_what_tensor_parallelism_leaves_it(backend: str, experts: int) -> None:
    """Matrices are divided, and of experts on torch alone; norms and routers are whole."""
    config = config_of([f"backend={backend}"])
    query = MemoryQuery(read(EXPERTS, "a test"), None, None, config.backend, config.optimizer, (), None)
    query = replace(query, mesh=MeshShape(1, 1, 2))
    kinds = {tensor.canonical_name: sizes.divided(query, tensor) for tensor in tensors_of(query.architecture)}
    assert {kinds.pop(name) for name in ("expert_gate_up", "expert_down")} == {experts}
    assert {name for name, among in kinds.items() if among == 2} == {"embedding", "head", "qkv", "out"}
    assert {"router", "attention_norm"} <= kinds.keys()


@pytest.mark.parametrize(
    ("optimizer", "each"),
    [("adamw", 8), ("lion", 4), ("muon", 4), ("adafactor", 4 / 128 + 4 / 64), ("adamw_8bit", 2 + 8 / 256)],
)
def test_an_optimizer_takes_what_it_keeps(optimizer: str, each: float) -> None:
    """Bytes per weight of a matrix of 64 x 128 numbers, by the difference that 64 experts more make of three each."""
    config = config_of([f"optimizer={optimizer}"])

    def taken(experts: int, shard: int) -> int:
        model = EXPERTS | {"hidden_size": 128, "moe_intermediate_size": 64, "num_experts": experts}
        query = MemoryQuery(read(model, "a test"), None, None, config.backend, config.optimizer, (), None)
        return sizes.moments(replace(query, mesh=MeshShape(1, shard, 1)))

    assert taken(68, 1) - taken(4, 1) == pytest.approx(64 * 3 * 64 * 128 * each, rel=0.01)  # its router beside it
    assert taken(68, 2) == pytest.approx(taken(68, 1) / 2, rel=0.01) or optimizer not in ("adamw", "lion")


EXPERTS = {
    "model_type": "qwen3_moe",
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "moe_intermediate_size": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
