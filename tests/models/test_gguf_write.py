"""Models written as GGUF: read back by our reader, by the package's, and by transformers' own loader."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.gguf_models import BYTES, CASES, LLAMA3, SIZES, config_of, make, random
from tunix_rt.errors import ModelError, explained
from tunix_rt.files import read_json
from tunix_rt.models import gguf, gguf_metadata, gguf_write
from tunix_rt.models.adapter import Adapter, fresh, linear, merged, tensor_name
from tunix_rt.models.adapter_folder import Base, write_adapter
from tunix_rt.models.families.registry import FAMILIES as ALL
from tunix_rt.models.families.registry import read, tensors_of
from tunix_rt.models.families.rope import rotary_frequencies
from tunix_rt.models.folder import Float32, read_architecture, read_weights, stream, write_model
from tunix_rt.models.gguf_adapter import write_gguf_adapter
from tunix_rt.models.gguf_families import FAMILIES, family_of
from tunix_rt.models.gguf_layout import layout
from tunix_rt.models.gguf_write import write_gguf
from tunix_rt.models.tokenizer import Tokenizer


def assert_same(ours: Mapping[str, Float32], theirs: Mapping[str, Float32], offset: float) -> None:
    """Equal, with what is computed from norms that are stored without an offset."""
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        added = np.float32(offset) if name.endswith("norm.weight") else np.float32(0)
        assert np.array_equal(value + added, theirs[name] + added), name


def test_every_family_of_the_project_is_written() -> None:
    assert FAMILIES.keys() == ALL.keys() == {case["model_type"] for case in CASES.values()}


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_is_read_back(case: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "model", case)
    write_gguf(folder, tmp_path / "model.gguf", "F32", case)
    gguf.convert(tmp_path / "model.gguf", tmp_path / "back")
    before, after = read_architecture(folder), read_architecture(tmp_path / "back")
    assert_same(read_weights(folder), read_weights(tmp_path / "back"), before.norm_offset)
    kinds = [(kind.window, kind.rope and rotary_frequencies(kind.rope, before.head_dim)) for kind in before.layers]
    for (window, frequencies), kind in zip(kinds, after.layers, strict=True):
        assert window == kind.window and (kind.rope is None) == (frequencies is None)
        if kind.rope is not None:
            np.testing.assert_allclose(rotary_frequencies(kind.rope, before.head_dim), frequencies, rtol=3e-7)
    for name in ("norm_eps", "max_positions", "attention_scale", "score_cap", "logit_cap", "experts", "tie_embeddings"):
        assert getattr(before, name) == getattr(after, name), name
    ours, theirs = Tokenizer.load(folder), Tokenizer.load(tmp_path / "back")
    for text in ("a cat\n\n12 3", "the é <end> theme" if case in BYTES else "é <end>"):
        assert ours.ids(text) == theirs.ids(text)
    assert (ours.end_tokens, ours.pad_id, ours.begin_token) == (theirs.end_tokens, theirs.pad_id, theirs.begin_token)


@given(
    case=st.sampled_from(sorted(CASES)),
    layers=st.integers(1, 5),
    groups=st.integers(1, 3),
    each=st.integers(1, 3),
    width=st.integers(1, 4),
    experts=st.integers(1, 4),
)
@settings(max_examples=40)
def test_names_and_tensors_are_those_of_the_package_and_turn_back(
    case: str, layers: int, groups: int, each: int, width: int, experts: int
) -> None:
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    sizes = {"num_attention_heads": groups * each, "num_key_value_heads": groups, "head_dim": 2 * width}
    sizes |= {"num_hidden_layers": layers, "hidden_size": groups * each * 2 * width, "vocab_size": 7}
    sizes |= {"num_experts": experts, "num_local_experts": experts, "num_experts_per_tok": 1}
    known = {"n_embd": sizes["hidden_size"], "n_layer": layers, "n_head": groups * each}
    config = config_of(case, **(known if case == "gpt2" else sizes))
    if case != "gpt2" and "num_experts" not in CASES[case] and "num_local_experts" not in CASES[case]:
        config = {key: value for key, value in config.items() if "experts" not in key}
    elif "num_local_experts" not in CASES[case]:
        config.pop("num_local_experts", None)
    else:
        config.pop("num_experts", None)
    architecture = read(config, case)
    stored = layout(architecture)
    assert len({place.name for place in stored}) == len(stored)
    found = [tensor.name for place in stored for tensor in place.tensors]
    own = [tensor.name for tensor in tensors_of(architecture)]
    assert sorted(found) == sorted(own)
    number = next(key for key, name in MODEL_ARCH_NAMES.items() if name == FAMILIES[architecture.family].name)
    names = get_tensor_name_map(MODEL_ARCH(number), layers).mapping
    listed = {name for _, name in names.values()}
    weights = random(architecture)
    for place in stored:
        assert place.name.rpartition(".")[0] in listed
        values = place.to_file([weights[tensor.name] for tensor in place.tensors])
        assert values.shape == place.shape
        for name, value in place.from_file(values).items():
            np.testing.assert_allclose(value, weights[name], atol=1e-6)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "Q8_0"])
def test_other_types_round_as_the_package_does(dtype: str, tmp_path: Path) -> None:
    from gguf import GGMLQuantizationType, GGUFReader
    from gguf.quants import dequantize, quantize

    folder = make(tmp_path / "model", "llama", hidden_size=64, head_dim=16)
    write_gguf(folder, tmp_path / "model.gguf", dtype, "small")  # type: ignore[arg-type]
    gguf.convert(tmp_path / "model.gguf", tmp_path / "back")
    before, after = read_weights(folder), read_weights(tmp_path / "back")
    down, value = "model.layers.1.mlp.down_proj.weight", "model.layers.1.self_attn.v_proj.weight"
    exact = {"F16": np.float16, "BF16": ml_dtypes.bfloat16}
    for name in (down, value):
        if dtype == "Q8_0" and name == value:
            kind = GGMLQuantizationType.Q8_0
            assert np.array_equal(after[name], dequantize(quantize(before[name], kind), kind))
            assert np.abs(after[name] - before[name]).max() < np.abs(before[name]).max() / 127
        else:  # rows of 36 are no whole blocks of Q8_0
            assert np.array_equal(after[name], before[name].astype(exact.get(dtype, np.float16)).astype(np.float32))
    assert np.array_equal(before["model.norm.weight"], after["model.norm.weight"])
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(tmp_path / "model.gguf").tensors}
    assert kinds["blk.0.attn_v.weight"] == dtype and kinds["blk.0.attn_norm.weight"] == "F32"


@pytest.mark.parametrize(
    ("case", "changes", "problem"),
    [
        ("olmoe", {"clip_qkv": 1.0}, "clip_qkv is 1.0"),
        ("olmoe", {"num_key_value_heads": 2}, "fewer heads than its queries"),
        ("olmo2", {"head_dim": 8}, "not as wide as the model, 24"),
        ("qwen3", {"attention_bias": True}, "biases 'all'"),
        ("qwen3_moe", {"norm_topk_prob": False}, "norm_topk_prob is false"),
        ("qwen2", {"rope_parameters": LLAMA3 | {"rope_theta": 1e4}}, "scaled as llama3"),
        ("smollm3", {"no_rope_layer_interval": 2}, "not every fourth"),
        ("gemma2", {"query_pre_attn_scalar": 9}, "scaled by 0.333"),
        ("gemma2", {"final_logit_softcapping": None}, "no caps"),
        ("gemma3", {"layer_types": ["full_attention"] * 2 + ["sliding_attention"] * 2}, "do not come in periods"),
        ("llama", {"hidden_act": "gelu"}, "its activation is gelu"),
    ],
)
def test_what_a_file_cannot_say_is_refused(case: str, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ModelError, match=f"GGUF: .*{problem}.*llama.cpp would compute another model"):
        family_of(read(config_of(case, **changes), case))


@pytest.mark.parametrize("listed", [[True, True, False, True], [True] * 3])
def test_windows_may_be_listed_layer_by_layer(
    listed: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents: a traceback for a file that another converter wrote."""
    keys = gguf_metadata.model_keys
    changed = {"gemma3.attention.sliding_window_pattern": listed}
    monkeypatch.setattr(gguf_write, "model_keys", lambda *given: keys(*given) | changed)
    write_gguf(make(tmp_path / "model", "gemma3"), tmp_path / "model.gguf", "F16", "small")
    if len(listed) == SIZES["num_hidden_layers"]:
        gguf.convert(tmp_path / "model.gguf", tmp_path / "back")
        types = read_json(tmp_path / "back" / "config.json")["layer_types"]
        assert [kind == "sliding_attention" for kind in types] == listed
    else:
        with pytest.raises(
            ModelError, match=r"sliding_window_pattern: .* expected a number, or a truth value for each"
        ):
            gguf.convert(tmp_path / "model.gguf", tmp_path / "back")


def test_windows_that_cannot_be_said_end_the_context(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "model", "mistral", sliding_window=40)
    write_gguf(folder, tmp_path / "model.gguf", "F16", "small")
    assert "contexts of up to 40 tokens" in capsys.readouterr().err
    gguf.convert(tmp_path / "model.gguf", tmp_path / "back")
    assert read_architecture(tmp_path / "back").max_positions == 40


def test_a_value_beyond_f16_leaves_no_file(tmp_path: Path) -> None:
    folder = make(tmp_path / "model", "llama")
    weights = read_weights(folder)
    weights["model.layers.3.mlp.up_proj.weight"][0, 0] = 1e6
    write_model(folder, read_json(folder / "config.json"), weights)
    with pytest.raises(ModelError, match=r"blk\.3\.ffn_up\.weight has values beyond those of F16; --dtype BF16"):
        write_gguf(folder, tmp_path / "out" / "model.gguf", "F16", "small")
    assert not list((tmp_path / "out").iterdir())


def test_a_full_disk_is_called_so(tmp_path: Path) -> None:
    """numpy names no reason where it could write a part only."""
    folder, limits = make(tmp_path / "model", "llama"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"out.model\.gguf") as caught:
            write_gguf(folder, tmp_path / "out" / "model.gguf", "F32", "small")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "the disk is full while writing" in str(explained(caught.value))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("rslora", [False, True])
def test_an_adapter_adds_to_the_matrices_of_its_base(rslora: bool, tmp_path: Path) -> None:
    """What llama.cpp adds to a matrix as it lies in the file: alpha / rank * B A (src/llama-adapter.h, get_scale)."""
    from gguf import GGUFReader

    base = make(tmp_path / "base", "llama")
    architecture = read_architecture(base)
    adapter = Adapter(4, 6.0, rslora, 0.0, linear(architecture))
    tensors = {
        name: stream(1, name).standard_normal(value.shape).astype("f4") for name, value in fresh(adapter, 0).items()
    }
    write_adapter(tmp_path / "adapter", architecture, adapter, tensors, Base.of(base, ""))
    write_gguf_adapter(tmp_path / "adapter", base, tmp_path / "adapter.gguf", "F32", "small")
    reader = GGUFReader(tmp_path / "adapter.gguf")
    assert reader.fields["general.type"].contents() == "adapter"
    assert reader.fields["adapter.type"].contents() == "lora"
    alpha, found = reader.fields["adapter.lora.alpha"].contents(), {t.name: t.data for t in reader.tensors}
    before, after = read_weights(base), merged(read_weights(base), adapter, tensors)
    for place in layout(architecture):
        if f"{place.name}.lora_a" in found:
            low, high = found[f"{place.name}.lora_a"], found[f"{place.name}.lora_b"]
            there = place.to_file([before[place.tensors[0].name]]) + alpha / len(low) * high @ low
            np.testing.assert_allclose(there, place.to_file([after[place.tensors[0].name]]), rtol=1e-4, atol=1e-4)
    assert len(found) == 2 * len(adapter.modules) and tensor_name(adapter.modules[0], "A") in tensors


READERS = ["llama", "qwen2", "qwen3", "gemma2", "gpt2", "qwen3_moe", "qwen2_moe"]
TAKEN = {
    "gpt2": {"n_inner": 96},
    "qwen3": {"num_key_value_heads": 4, "head_dim": 128},
    "gemma2": {"num_key_value_heads": 4, "head_dim": 256, "query_pre_attn_scalar": 256},
}
"""What `transformers` takes for granted where it does not look into the file."""


@pytest.mark.parametrize("case", ["llama", *(pytest.param(case, marks=pytest.mark.acceptance) for case in READERS[1:])])
def test_transformers_computes_the_same_from_the_file(case: str, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    wide = {"num_key_value_heads": 4, "head_dim": 6}  # it takes the width of a head from the width of the model
    folder = make(tmp_path / "model", case, **TAKEN.get(case, wide))
    weights = {name: value * np.float32(0.1) for name, value in read_weights(folder).items()}
    write_model(folder, read_json(folder / "config.json"), weights)
    write_gguf(folder, tmp_path / "model.gguf", "F32", case)
    ids = torch.tensor([[5, 9, 17, 30, 31, 7, 8]])
    with torch.no_grad():
        ours, theirs = (
            AutoModelForCausalLM.from_pretrained(
                place,
                **file,
                attn_implementation="eager",
                **({"experts_implementation": "eager"} if "moe" in case else {}),
            )(ids).logits
            for place, file in ((folder, {}), (tmp_path, {"gguf_file": "model.gguf"}))
        )
    np.testing.assert_allclose(theirs.numpy(), ours.numpy(), rtol=1e-4, atol=1e-5)
