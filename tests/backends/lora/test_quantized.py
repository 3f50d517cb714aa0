"""Adapters on a quantised base: as on the model of its values, on both backends, in training, answers and after."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.numpy import load_file

from tests.backends.lora.conftest import NAMES, SOME, Both, ours, reference, relative, trained, with_peft
from tests.families import CASES, write
from tests.quantized import model_of_the_values
from tunix_rt.backends.fold import Fold
from tunix_rt.backends.interface import Backend
from tunix_rt.backends.jax import programs
from tunix_rt.backends.jax.decoder import Decoder
from tunix_rt.backends.jax.quantized import specs
from tunix_rt.backends.jax.sampling import Sampling
from tunix_rt.backends.memory import MemoryQuery, asked
from tunix_rt.backends.registry import create
from tunix_rt.backends.torch.step import micro_batch
from tunix_rt.batches.batch import Batch
from tunix_rt.config.choices import Quantization
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.errors import ModelError
from tunix_rt.models.adapter import declared, linear
from tunix_rt.models.adapter_folder import read_base
from tunix_rt.models.adapter_merge import merge
from tunix_rt.models.families.architecture import Architecture, layer_parts, whole_parts
from tunix_rt.models.folder import read_architecture

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
]


@pytest.mark.parametrize(("family", "kind"), [("llama", "nf4"), ("gpt2", "nf4"), ("llama", "int8")])
@pytest.mark.slow
def test_it_is_trained_and_computed_as_on_the_model_of_its_values(
    family: str, kind: Quantization, both: Both, bases: dict[str, Path], setup_of: Any, batch: Batch, tmp_path: Path
) -> None:
    """Losses, gradients and updates as both backends agree on LoRA; log-probabilities as plain `peft` has them."""
    base, target, valued = bases[family], SOME[family], model_of_the_values(bases[family], kind, tmp_path / "valued")
    setup = setup_of(base, target=target, quantize=kind)
    plain = setup_of(valued, target=target)
    expected, told = trained(both["torch"], both["torch"].load(valued, plain), batch, 2, tmp_path / "plain")
    moments = load_file(told / "optimizer.safetensors")
    for name, backend in both.items() if kind == "nf4" else [("torch", both["torch"])]:
        losses, folder = trained(backend, backend.load(base, setup), batch, 2, tmp_path / name)
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        found = load_file(folder / "optimizer.safetensors")
        assert all(relative(found[key], value) < 1e-4 for key, value in moments.items() if key.startswith("m."))
        by_peft = reference(with_peft(valued, folder), batch)
        np.testing.assert_allclose(ours(backend, base, folder, batch), by_peft, atol=1e-4)
    in_full = reference(with_peft(base, folder), batch)
    assert np.abs(in_full - by_peft).max() > 1e-3, "void: quantising changes nothing"


def test_it_answers_as_the_model_of_its_values(
    both: Both, bases: dict[str, Path], setup_of: Any, batch: Batch, tmp_path: Path, decoding: Any
) -> None:
    """With the adapter, and as it was before training."""
    base, valued = bases["llama"], model_of_the_values(bases["llama"], "nf4", tmp_path / "valued")
    setup = setup_of(base, quantize="nf4")
    _, folder = trained(both["torch"], both["torch"].load(base, setup), batch, 2, tmp_path / "adapter")
    prompts = [row[:length].astype(np.int32) for row, length in zip(batch.tokens[:2], (3, 5), strict=True)]
    merge(without_record(folder, tmp_path / "plain"), valued, tmp_path / "merged")
    for adapter, same in ((folder, tmp_path / "merged"), (None, valued)):
        expected = texts(both["torch"], both["torch"].load(same, None), prompts, decoding(max_new_tokens=6))
        for backend in both.values() if adapter else [both["torch"]]:
            state = backend.load(base, None, adapter, None if adapter else "nf4")
            assert texts(backend, state, prompts, decoding(max_new_tokens=6)) == expected
        assert any(expected)


def test_experts_are_not_quantised(both: Both, batch: Batch, tmp_path: Path) -> None:
    """They take no adapter; the matrices around them do."""
    base = write(tmp_path / "base", CASES["qwen3_moe"])
    valued = model_of_the_values(base, "nf4", tmp_path / "valued")
    expected = ours(both["torch"], valued, None, batch)
    assert np.abs(ours(both["torch"], base, None, batch) - expected).max() > 1e-3, "void: quantising changes nothing"
    whole = replace(batch, weights=(batch.segments > 0).astype(np.float32))
    for backend in both.values():
        state = backend.load(base, None, None, "nf4")
        found = backend.fetch(backend.logprobs(state, whole))["logprobs"][batch.segments == 1]
        np.testing.assert_allclose(found, expected, atol=1e-4)


def without_record(folder: Path, copy: Path) -> Path:
    """The same adapter as it comes from elsewhere, without base.json."""
    shutil.copytree(folder, copy)
    (copy / "base.json").unlink()
    return copy


def texts(backend: Backend, state: Any, prompts: Any, generation: Any) -> list[list[int]]:
    pieces = list(backend.generate(state, prompts, generation, [0, 1]))
    return [[token for p in pieces if p.index == i for token in p.ids.tolist()] for i in range(len(prompts))]


def test_going_on_is_exact_crosses_backends_and_needs_the_same_base(
    both: Both, bases: dict[str, Path], setup_of: Any, batch: Batch, tmp_path: Path
) -> None:
    base = bases["llama"]
    setup = setup_of(base, quantize="nf4")
    for name, backend in both.items():
        losses, through = trained(backend, backend.load(base, setup), batch, 3, tmp_path / name / "3")
        _, first = trained(backend, backend.load(base, setup), batch, 1, tmp_path / name / "1")
        again, resumed = trained(backend, backend.restore(first, base, setup), batch, 2, tmp_path / name / "on")
        assert again == losses[1:]
        for file in ("adapter_model.safetensors", "optimizer.safetensors", "base.json"):
            assert (through / file).read_bytes() == (resumed / file).read_bytes()
        other = both[NAMES[name == "jax"]]
        on, _ = trained(other, other.restore(first, base, setup), batch, 2, tmp_path / f"{name} elsewhere")
        np.testing.assert_allclose(on, losses[1:], rtol=1e-5)
        with pytest.raises(ModelError, match=r"trained on a base with quantize=nf4.*on one with null; declare"):
            backend.restore(first, base, setup_of(base))
        with pytest.raises(ModelError, match=r"quantize=nf4, and would be trained further on one with int8"):
            backend.load(base, setup_of(base, quantize="int8", path=str(first)))
        assert backend.load(base, setup_of(base, quantize="nf4", path=str(first)))
    assert json.loads((first / "base.json").read_text())["quantize"] == "nf4"
    (first / "base.json").write_text('{"sha256": null, "quantize": "nf5"}')
    with pytest.raises(ModelError, match=r"base.json: quantize: 'nf5', expected one of int8, nf4"):
        read_base(first)


def test_merged_it_is_added_to_the_full_weights_which_is_said(
    both: Both, bases: dict[str, Path], setup_of: Any, batch: Batch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `peft` merges it when it opens the base in full."""
    base, backend = bases["llama"], both["torch"]
    _, folder = trained(backend, backend.load(base, setup_of(base, quantize="int8")), batch, 2, tmp_path / "adapter")
    merge(folder, base, tmp_path / "merged")
    assert "was trained on a base in int8; it is merged with the base's full weights" in capsys.readouterr().err
    expected = reference(with_peft(base, folder), batch)
    np.testing.assert_allclose(ours(backend, tmp_path / "merged", None, batch), expected, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_with_checkpointing_and_in_bfloat16(
    name: Any, both: Both, bases: dict[str, Path], setup_of: Any, batch: Batch, tmp_path: Path
) -> None:
    """Recomputed it is the same; in bfloat16 the products are rounded, the scales are not."""
    base, hardware = bases["llama"], HardwareConfig(platform="cpu", threads=1)
    setup = setup_of(base, quantize="int8")
    expected, _ = trained(both["torch"], both["torch"].load(base, setup), batch, 2, tmp_path / "plain")
    for precision, tolerance in (("float32", 1e-6), ("bfloat16", 2e-2))[name == "jax" :]:  # compiled once
        config = BackendConfig(name=name, precision=precision, gradient_checkpointing=True)  # type: ignore[arg-type]
        backend = create(config, hardware, tmp_path / "compiled")
        losses, _ = trained(backend, backend.load(base, setup), batch, 2, tmp_path / precision)
        np.testing.assert_allclose(losses, expected, rtol=tolerance)


def test_torch_keeps_no_dequantised_matrix_for_the_backward_pass(
    both: Both, bases: dict[str, Path], setup_of: Any, batch: Batch
) -> None:
    base = bases["llama"]
    shapes = {tensor.matrix_shape for tensor in linear(read_architecture(base))}
    for quantize, found in (("nf4", False), (None, True)):
        state: Any = both["torch"].load(base, setup_of(base, quantize=quantize))
        kept: list[Any] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor, kept=kept: kept.append(tensor.shape), print):
            micro_batch(state.model, Fold.of(len(batch.tokens), 2).local(batch), 0)
        assert any(tuple(shape) in shapes or tuple(shape)[::-1] in shapes for shape in kept) == found, quantize


def test_jax_dequantises_one_part_of_a_layer_at_a_time(bases: dict[str, Path], setup_of: Any, batch: Batch) -> None:
    """The compiler's scratch, for a wide model and few tokens: otherwise at least as much as all matrices in full.

    Of a step, in which it could use those of the forward pass again, and of a loop over new tokens.
    """
    narrow = read_architecture(bases["llama"])
    wide = replace(narrow, hidden_size=512, intermediate_size=1024, layers=narrow.layers[:1] * 3)
    setup = setup_of(bases["llama"])
    query = MemoryQuery(
        architecture=wide,
        adapter=declared(setup.adapter.config, wide),
        quantize="nf4",
        backend=BackendConfig(name="jax", precision="float32"),
        optimizer=setup.optimizer,
        batches=(batch,),
        rows_at_once=2,
        predicted=None,
    )
    matrices = 4 * sum(math.prod(tensor.shape) for tensor in linear(wide))
    activations = asked("jax", "activations")
    assert activations is not None
    assert activations(query) < 0.75 * matrices
    assert scratch_of_decoding(wide) < 0.35 * matrices


def scratch_of_decoding(wide: Architecture) -> int:
    def spec(*shape: int, dtype: Any = np.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]

    norms = {own: spec(wide.num_layers, *part[0]) for own, part in layer_parts(wide).items() if "norm" in own}
    params = {own: spec(*part) for own, part in whole_parts(wide).items()} | {"layers": norms | specs(wide, "nf4")}
    graph, sampling = nnx.graphdef(Decoder(wide, jnp.float32, params)), Sampling.of([None] * 4)
    fixed = (graph, sampling.kind, 0)
    layers = jax.eval_shape(lambda whole: nnx.merge(graph, whole).separate(), params)
    ids, row = spec(2, dtype=np.int32), spec(4, dtype=np.int32)
    prompts = (spec(4, 16, dtype=np.int32), row, row, row, ids, sampling, spec(4))
    carry, _ = jax.eval_shape(lambda *given: programs.prefill(*fixed, 32, *given), params, *prompts)
    lowered = programs.decode.lower(*fixed, params, layers, carry, ids, sampling, spec(32, 4), np.int32(32))
    found: Any = lowered.compile().memory_analysis()
    return int(found.temp_size_in_bytes)
