"""An adapter's numbers and its folder: how it starts, what it covers, what is refused, and to which base it belongs."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.families import CASES, write
from tunix_rt.config.model import LoraAdapter
from tunix_rt.errors import ModelError
from tunix_rt.models.adapter import Adapter, declared, fresh, linear, merged, module_name, short_names
from tunix_rt.models.adapter_fields import PLAIN, READ, UNSUPPORTED, WITHOUT_EFFECT
from tunix_rt.models.adapter_folder import Base, read_adapter, read_base, start, write_adapter
from tunix_rt.models.content import folder_digest
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.folder import read_architecture, read_weights
from tunix_rt.models.sources import base_folder, opened
from tunix_rt.models.tensor_file import write_weights


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: write(tmp_path_factory.mktemp("base"), CASES[name]) for name in ("llama", "gpt2")}


@pytest.fixture(scope="module")
def llama(bases: dict[str, Path]) -> Architecture:
    return read_architecture(bases["llama"])


@pytest.fixture(scope="module")
def gpt2(bases: dict[str, Path]) -> Architecture:
    return read_architecture(bases["gpt2"])


def lora(**changes: Any) -> LoraAdapter:
    values: dict[str, Any] = {"kind": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.0, "target": "all-linear"}
    return LoraAdapter(**(values | {"rslora": False, "path": None} | changes))


def written(folder: Path, architecture: Architecture, base: Path, **changes: Any) -> Path:
    adapter = declared(lora(**changes), architecture)
    write_adapter(folder, architecture, adapter, fresh(adapter, 0), Base.of(base, folder_digest(base)))
    return folder


def changed(folder: Path, **fields: Any) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return folder


def test_all_linear_is_every_matrix_of_every_layer_and_no_other(llama: Architecture, gpt2: Architecture) -> None:
    """`peft` leaves the head out too, and embeddings are no matrices of a layer."""
    assert short_names(linear(llama), linear(llama)) == (
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    )
    assert len(linear(llama)) == 7 * llama.num_layers
    assert short_names(linear(gpt2), linear(gpt2)) == ("c_attn", "c_proj", "c_fc")
    assert len(linear(gpt2)) == 4 * gpt2.num_layers


def test_targets_are_ends_of_names(gpt2: Architecture) -> None:
    """GPT-2 calls two matrices of a layer `c_proj`; one alone is meant with the word before."""
    both = declared(lora(target=("c_proj",)), gpt2)
    one = declared(lora(target=("mlp.c_proj",)), gpt2)
    assert (len(both.modules), len(one.modules)) == (2 * gpt2.num_layers, gpt2.num_layers)
    assert short_names(one.modules, linear(gpt2)) == ("mlp.c_proj",)
    assert {module_name(module) for module in one.modules} < {module_name(module) for module in both.modules}
    with pytest.raises(ModelError, match=r"gpt2 has no 'q_proj'; it has c_attn, c_proj, c_fc"):
        declared(lora(target=("c_attn", "q_proj")), gpt2)
    with pytest.raises(ModelError, match=r"'lm_head' is outside of the layers, where an adapter can be merged, but is"):
        declared(lora(target=("c_attn", "lm_head")), gpt2)


def test_the_start_is_peft_s_in_distribution_and_each_tensor_has_its_own_stream(llama: Architecture) -> None:
    whole = declared(lora(rank=64), llama)
    drawn = fresh(whole, 5)
    assert {name: tensor.shape for name, tensor in drawn.items()} == whole.shapes
    for name, tensor in drawn.items():
        assert tensor.dtype == np.float32
        if "lora_B" in name:
            assert not tensor.any()
        else:
            bound = 1 / math.sqrt(tensor.shape[1])
            assert 0.95 * bound < np.abs(tensor).max() <= bound
            assert tensor.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    few = fresh(declared(lora(rank=64, target=("up_proj",)), llama), 5)
    assert few.keys() < drawn.keys()
    assert all(np.array_equal(drawn[name], tensor) for name, tensor in few.items()), "others do not matter"
    assert not np.array_equal(*(fresh(whole, seed)[next(iter(drawn))] for seed in (5, 6)))


def test_scaling(llama: Architecture) -> None:
    module = linear(llama)[0]
    assert Adapter(16, 8.0, False, 0.0, ()).scaling_of(module) == 0.5
    assert Adapter(16, 8.0, True, 0.0, ()).scaling_of(module) == 2.0
    own = ((module_name(module), 4, 2.0),)
    assert Adapter(16, 8.0, True, 0.0, (), own).scaling_of(module) == 1.0


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_read_write_and_merge(family: str, bases: dict[str, Path], tmp_path: Path) -> None:
    """A file is read back as it was written, bit by bit; a merged matrix lies as the base's does."""
    architecture, weights = read_architecture(bases[family]), read_weights(bases[family])
    folder = written(tmp_path, architecture, bases[family], alpha=6.5, dropout=0.25, rslora=True)
    adapter, tensors = read_adapter(folder, architecture)
    assert adapter == declared(lora(alpha=6.5, dropout=0.25, rslora=True), architecture)
    drawn = fresh(adapter, 0)
    assert all(np.array_equal(tensors[name], tensor) for name, tensor in drawn.items())
    assert base_folder(folder) == bases[family]
    random = np.random.default_rng(0)
    tensors = {name: random.standard_normal(tensor.shape).astype(np.float32) for name, tensor in tensors.items()}
    whole = merged(weights, adapter, tensors)
    module = adapter.modules[-1]
    a, b = (tensors[f"base_model.model.{module_name(module)}.lora_{side}.weight"] for side in "AB")
    added = (
        (whole[module.name] - weights[module.name]).T if family == "gpt2" else whole[module.name] - weights[module.name]
    )
    np.testing.assert_allclose(added, 6.5 / 2 * (b @ a), rtol=1e-3, atol=1e-4)
    untouched = weights.keys() - {module.name for module in adapter.modules}
    assert untouched and all(whole[name] is weights[name] for name in untouched)


def test_a_changed_base_is_refused(bases: dict[str, Path], llama: Architecture, tmp_path: Path) -> None:
    adapter, other = written(tmp_path / "adapter", llama, bases["llama"]), bases["gpt2"]
    assert opened(adapter, bases["llama"]) == (bases["llama"], adapter)
    assert opened(other, bases["llama"]) == (other, None)
    with pytest.raises(ModelError, match=r"not the model that the adapter .* was trained on \(sha256 \w+… here"):
        opened(adapter, other)


def test_an_adapter_from_elsewhere_on_another_folder_of_the_same_shapes(
    bases: dict[str, Path], llama: Architecture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder that it names is compared while it is there; an equal copy is the same model."""
    adapter = written(tmp_path / "adapter", llama, bases["llama"])
    (adapter / "base.json").unlink()
    assert read_base(adapter).sha256 is None
    copy = shutil.copytree(bases["llama"], tmp_path / "copy")
    assert opened(adapter, copy) == (copy, adapter)
    (copy / "generation_config.json").write_text('{"eos_token_id": 5}')
    with pytest.raises(
        ModelError, match=rf"copy: not the model that the adapter .* in {bases['llama']}, which it names"
    ):
        opened(adapter, copy)
    assert capsys.readouterr().err == ""
    (copy / "made.json").write_text("{}")  # a copy that was made here, with another end token
    assert opened(adapter, copy) == (copy, adapter)
    changed(adapter, base_model_name_or_path=str(tmp_path / "gone"))
    assert opened(adapter, bases["llama"]) == (bases["llama"], adapter)
    warned = capsys.readouterr().err.splitlines()
    assert [line.partition(" names ")[2] for line in warned] == [
        f"{bases['llama']} as its base, and is used on {copy}",
        f"{tmp_path / 'gone'} as its base, and is used on {bases['llama']}",
    ]


@pytest.mark.parametrize("named", ["org/Small-Instruct", "org/small", None])
def test_an_adapter_from_elsewhere_on_another_model_of_the_hub_is_a_warning(
    named: str | None,
    bases: dict[str, Path],
    llama: Architecture,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A chat model and the one it was made from have the same shapes."""
    adapter = changed(written(tmp_path / "adapter", llama, bases["llama"]), base_model_name_or_path=named)
    (adapter / "base.json").unlink()
    base = tmp_path / "models--org--Small" / "snapshots" / "93efa2f0"
    shutil.copytree(bases["llama"], base)
    assert opened(adapter, base) == (base, adapter)
    warned = "names org/Small-Instruct as its base, and is used on org/Small" in capsys.readouterr().err
    assert warned == (named == "org/Small-Instruct")


def test_a_base_in_the_hub_s_cache_is_called_by_its_name(tmp_path: Path) -> None:
    base = Base.of(tmp_path / "hub" / "models--HuggingFaceTB--SmolLM2-135M" / "snapshots" / "93efa2f0", "abc")
    assert base == Base("HuggingFaceTB/SmolLM2-135M", "93efa2f0", "abc")


def test_an_adapter_in_a_pickle_says_what_writes_another(
    bases: dict[str, Path], llama: Architecture, tmp_path: Path
) -> None:
    folder = written(tmp_path, llama, bases["llama"])
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"only safetensors is read\); of adapter_model\.bin .*save_pretrained"):
        read_adapter(folder, llama)


def test_a_base_that_is_gone_is_named(bases: dict[str, Path], llama: Architecture, tmp_path: Path) -> None:
    folder = changed(written(tmp_path, llama, bases["llama"]), base_model_name_or_path="nowhere/at/all")
    with pytest.raises(ModelError, match=r"nowhere/at/all: no such model folder.*--base FOLDER"):
        base_folder(folder)
    changed(folder, base_model_name_or_path=None)
    with pytest.raises(ModelError, match=r"does not say to which model it belongs.*--base FOLDER"):
        base_folder(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"use_dora": True}, "use_dora: True is not supported"),
        ({"bias": "all"}, "bias: 'all' is not supported"),
        ({"lora_dropout": "x"}, "lora_dropout: 'x', expected a number from 0 to 1"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save: \['lm_head'\] were trained whole, which"),
        ({"rank_pattern": {"q_proj": 2}}, r"(?s)do not fit adapter_config.json.*\(4, 24\) in the folder, \(2, 24\) in"),
        ({"rank_pattern": {"q_proj": "2"}}, "rank_pattern: q_proj: '2', expected a positive integer"),
        ({"alpha_pattern": {"(": 2}}, r"alpha_pattern: .* is no regular expression"),
        ({"target_modules": "("}, r"target_modules: '\(' is no regular expression"),
        ({"target_modules": [1]}, r"target_modules: \[1\], expected a regular expression or a list of names"),
        ({"layers_to_transform": ["1"]}, r"layers_to_transform: \['1'\], expected a number or a list of numbers"),
        (
            {"layers_to_transform": 1},
            r"(?s)layers.0.self_attn.q_proj.lora_A.weight: \(4, 24\) in the folder, missing in",
        ),
        ({"exclude_modules": ".*v_proj"}, r"v_proj.lora_A.weight: \(4, 24\) in the folder, missing in the model"),
        (
            {"init_lora_weights": "pissa"},
            r"init_lora_weights: 'pissa' changes the base's .*path_initial_model_for_weight",
        ),
        ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights: 'pissa_niter_16' changes the base's weights"),
        ({"init_lora_weights": "OLoRA"}, "init_lora_weights: 'OLoRA' changes the base's weights"),
        ({"init_lora_weights": "corda"}, "init_lora_weights: 'corda' changes the base's weights"),
        ({"init_lora_weights": "lora_ga"}, "init_lora_weights: 'lora_ga' changes the base's weights"),
        ({"init_lora_weights": "loftq"}, r"init_lora_weights: 'loftq' changes the base's weights.*merge_and_unload"),
        ({"init_lora_weights": "magic"}, "init_lora_weights: 'magic' is not supported"),
        ({"scale_by_magic": 3}, "scale_by_magic: 3: not a field known here"),
        ({"peft_type": "IA3"}, "peft_type: 'IA3' is not supported, only 'LORA'"),
        ({"r": 5}, r"(?s)the weights do not fit adapter_config.json.*\(4, 24\) in the folder, \(5, 24\) in the model"),
        ({"lora_alpha": None}, "lora_alpha: missing, expected a positive number"),
    ],
)
def test_what_would_be_computed_otherwise_is_refused_by_name(
    fields: dict[str, Any], message: str, bases: dict[str, Path], llama: Architecture, tmp_path: Path
) -> None:
    folder = changed(written(tmp_path, llama, bases["llama"], target=("q_proj", "v_proj")), **fields)
    with pytest.raises(ModelError, match=message):
        read_adapter(folder, llama)


def test_every_field_of_peft_is_read_refused_or_known_to_change_nothing() -> None:
    """Fails when `peft` gets a new one; the values of `init_lora_weights` are those of its annotation."""
    import peft

    known = READ | UNSUPPORTED | WITHOUT_EFFECT
    assert len(known) == len(READ) + len(UNSUPPORTED) + len(WITHOUT_EFFECT), "a field is in one list only"
    assert {field.name for field in dataclasses.fields(peft.LoraConfig)} <= known
    _, values = typing.get_args(typing.get_type_hints(peft.LoraConfig)["init_lora_weights"])
    changing = {"pissa", "pissa_niter_[number of iters]", "olora", "corda", "loftq"}
    assert set(typing.get_args(values)) - set(PLAIN) == changing | {"mica"}


@pytest.mark.parametrize("fields", [{"init_lora_weights": value} for value in PLAIN] + [{"new_field": None}])
def test_how_a_plain_adapter_was_initialised_does_not_matter(
    fields: dict[str, Any], bases: dict[str, Path], llama: Architecture, tmp_path: Path
) -> None:
    folder = changed(written(tmp_path, llama, bases["llama"]), **fields)
    assert read_adapter(folder, llama)[0] == declared(lora(), llama)


def test_tensors_that_do_not_fit_are_listed_from_both_sides(
    bases: dict[str, Path], llama: Architecture, tmp_path: Path
) -> None:
    folder = written(tmp_path, llama, bases["llama"], target=("q_proj",))
    _, tensors = read_adapter(folder, llama)
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
    strange = "base_model.model.model.embed_tokens.lora_embedding_A"
    tensors[strange] = tensors.pop(name)
    write_weights(folder / "adapter_model.safetensors", tensors)
    with pytest.raises(ModelError) as caught:
        read_adapter(folder, llama)
    assert f"{strange}: (4, 24) in the folder, missing in the model" in str(caught.value)
    assert f"{name}: missing in the folder, (4, 24) in the model" in str(caught.value)


def test_what_is_trained_on_must_be_what_is_declared(
    bases: dict[str, Path], llama: Architecture, tmp_path: Path
) -> None:
    folder = written(tmp_path, llama, bases["llama"], target=("q_proj", "v_proj"))
    adapter, tensors = start(lora(target=("v_proj", "q_proj"), path=str(folder)), llama, 0)
    assert adapter.shapes.keys() == tensors.keys()
    with pytest.raises(ModelError) as caught:
        start(lora(rank=2, rslora=True, path=str(folder)), llama, 0)
    assert "rank: 4 in the folder, 2 in model.adapter" in str(caught.value)
    assert "rslora: False in the folder, True in model.adapter" in str(caught.value)
    assert "target: q_proj, v_proj in the folder, q_proj, k_proj, v_proj, o_proj" in str(caught.value)
    with pytest.raises(ModelError, match=r"no adapter_config\.json, so this is not an adapter"):
        start(lora(path=str(bases["llama"])), llama, 0)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match="only safetensors is read"):
        start(lora(path=str(folder)), llama, 0)
