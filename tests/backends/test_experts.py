"""Experts beyond what `test_families` compares: blocks of rows, precision, adapters, memory, batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from tests.backends.conftest import Traces
from tests.families import CASES, write
from tunix_rt.backends.interface import AdapterSetup, Backend, TrainingSetup
from tunix_rt.backends.jax import experts as in_jax
from tunix_rt.backends.memory import MemoryQuery
from tunix_rt.backends.registry import create
from tunix_rt.backends.torch import experts as in_torch
from tunix_rt.backends.torch.memory import activations
from tunix_rt.config.choices import BackendName, Precision
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.model import LoraAdapter
from tunix_rt.errors import ModelError
from tunix_rt.models.adapter import declared
from tunix_rt.models.adapter_folder import Base, write_adapter
from tunix_rt.models.families.architecture import Experts
from tunix_rt.models.folder import read_architecture

LORA = LoraAdapter(kind="lora", rank=4, alpha=8.0, dropout=0.0, target="all-linear", rslora=False, path=None)
NAMES: tuple[BackendName, ...] = ("jax", "torch")
ROUTER = "model.layers.0.mlp.gate.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with experts and one that all tokens pass through."""
    return write(tmp_path_factory.mktemp("experts"), CASES["qwen2_moe"])


def backend_of(name: BackendName, cache: Path, precision: Precision = "float32") -> Backend:
    config = BackendConfig(name=name, precision=precision)
    return create(config, HardwareConfig(platform="cpu", threads=1), cache)


@pytest.mark.parametrize("training", [True, False])
def test_no_token_at_all_is_nothing_with_gradients_of_zero(training: bool) -> None:
    """So it is on a device whose rows are empty: the last layer is computed where targets are."""
    matrix = torch.ones(5, 5, requires_grad=True)
    none = torch.zeros(0, 5)
    with torch.set_grad_enabled(training):
        chosen, weights = in_torch.route(none, torch.ones(3, 5), Experts(3, 2, 5, normalised=True))
        made = in_torch.mixed(none, chosen, weights, [0, 0, 0], lambda _, rows: rows @ matrix)
    assert made.shape == (0, 5)
    if training:
        made.sum().backward()  # type: ignore[no-untyped-call]
        assert matrix.grad is not None
        assert not matrix.grad.any()


@pytest.mark.parametrize("tokens", [2, 50])
def test_blocks_give_the_values_and_gradients_of_each_token_by_itself(tokens: int) -> None:
    """Blocks of one row and of several, experts without a token; in a loop, and computed again, as layers are."""
    random, experts = np.random.default_rng(0), Experts(6, 2, 3, normalised=True)
    shapes = (tokens, 5), (6 * 2 * 3, 5), (6 * 5, 3), (6, 5)
    given = [jnp.asarray(random.standard_normal(shape, dtype=np.float32)) for shape in shapes]
    given[3] = given[3].at[4].set(-100 * jnp.sign(given[0].sum(0)))

    def ours(x: Any, gate_up: Any, down: Any, router: Any) -> Any:
        def layer(x: Any, _: Any) -> Any:
            chosen, weights = in_jax.route(x @ router.T, experts)
            return x + in_jax.mixed(x, chosen, weights, gate_up, down, experts, jax.nn.silu), None

        return jax.lax.scan(jax.checkpoint(layer), x, None, length=2)[0].sum()

    def one_by_one(x: Any, gate_up: Any, down: Any, router: Any) -> Any:
        for _ in range(2):
            chosen, weights = in_jax.route(x @ router.T, experts)
            inner = jnp.einsum("nd,nkfd->nkf", x, gate_up.reshape(6, 6, 5)[chosen])
            inner = jax.nn.silu(inner[..., :3]) * inner[..., 3:]
            x = x + (jnp.einsum("nkf,nkdf->nkd", inner, down.reshape(6, 5, 3)[chosen]) * weights[..., None]).sum(1)
        return x.sum()

    found, expected = (jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2, 3)))(*given) for f in (ours, one_by_one))
    for got, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * float(jnp.abs(wanted).max()))


def test_the_router_is_never_rounded(folder: Path, adamw: Any, tmp_path: Path) -> None:
    """A rounded product would send tokens to other experts in bfloat16; its matrix stays float32 below an adapter."""
    random, experts = torch.Generator().manual_seed(0), Experts(64, 8, 3, normalised=True)
    x, router = (torch.randn(rows, 16, generator=random) for rows in (200, 64))
    chosen, weights = in_torch.route(x, router, experts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = in_torch.route(x, router, experts)
    assert torch.equal(again[0], chosen) and torch.equal(again[1], weights)
    setup = TrainingSetup(adamw(), None, 0, AdapterSetup(LORA, Base(None, None, None)))
    inner: Any = backend_of("torch", tmp_path, "bfloat16").load(folder, setup)
    halves = {name for name, weight in inner.model.weights.items() if weight.dtype == torch.bfloat16}
    assert "model.layers.0.mlp.experts.0.up_proj.weight" in halves and ROUTER not in halves
    outer: Any = backend_of("jax", tmp_path, "bfloat16").load(folder, setup)
    kinds = {name: array.dtype for name, array in outer.frozen["layers"].items()}
    assert (kinds["expert_gate_up"], kinds["router"]) == (jnp.bfloat16, jnp.float32)


def test_an_adapter_lies_on_what_all_tokens_pass_through(
    folder: Path, traces: Traces, batch_of: Any, tmp_path: Path
) -> None:
    """Which `peft` computes alike; experts and routers are refused by name."""
    import peft
    import transformers

    architecture = read_architecture(folder)
    adapter = declared(LORA, architecture)
    assert not any(".experts." in tensor.name or tensor.name == ROUTER for tensor in adapter.modules)
    random = np.random.default_rng(1)
    weights = {name: random.standard_normal(shape, dtype=np.float32) / 4 for name, shape in adapter.shapes.items()}
    write_adapter(tmp_path, architecture, adapter, weights, Base(str(folder), None, None))
    batch = batch_of([[np.concatenate(traces)[:20]]], 24)
    ids, targets = (torch.from_numpy(x[0, :19]).long() for x in (batch.tokens, batch.targets))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    model.set_experts_implementation("eager")
    with torch.no_grad():
        plain = model(ids[None]).logits[0].log_softmax(-1)
        expected = peft.PeftModel.from_pretrained(model, tmp_path)(ids[None]).logits[0].log_softmax(-1)
    assert (expected - plain).abs().max() > 0.1, "the adapter changes nothing"
    chosen = expected.gather(-1, targets[:, None])[:, 0].numpy()
    for name in NAMES:
        backend = backend_of(name, tmp_path)
        found = backend.fetch(backend.logprobs(backend.load(folder, None, tmp_path), batch))["logprobs"][0, :19]
        np.testing.assert_allclose(found[1:], chosen[1:], atol=1e-4, err_msg=name)  # the first is of the prompt
    with pytest.raises(ModelError, match=r"the family qwen2_moe has no 'experts.0.up_proj'; it has q_proj"):
        declared(replace(LORA, target=("experts.0.up_proj",)), architecture)


def test_memory_is_planned_without_numbers(folder: Path, batch_of: Any, traces: Traces, adamw: Any) -> None:
    """Nobody knows where tokens will go, so experts get equal shares; more experts of each token take more."""
    batch, whole, found = batch_of([traces[:2]], 40), read_architecture(folder), []
    backend = BackendConfig(name="torch", precision="float32")
    for few in (1, 2):
        assert whole.experts is not None
        architecture = replace(whole, experts=replace(whole.experts, per_token=few))
        found.append(activations(MemoryQuery(architecture, None, None, backend, adamw(), (batch,), None)))
    assert 0 < found[0] < found[1]


def test_a_text_does_not_depend_on_what_is_answered_beside_it(
    folder: Path, traces: Traces, decoding: Any, tmp_path: Path
) -> None:
    """In torch, alone and together. (That jax answers together what transformers answers alone is tested there.)"""
    backend = backend_of("torch", tmp_path)
    state, texts = backend.load(folder, None), []
    for size in (1, 16):
        made: dict[int, list[int]] = {}
        for piece in backend.generate(state, traces, decoding(temperature=1.0, batch_size=size), range(16)):
            made.setdefault(piece.index, []).extend(piece.ids.tolist())
        texts.append(made)
    assert texts[0] == texts[1] and len(set(map(len, texts[0].values()))) > 1
