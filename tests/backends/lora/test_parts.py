"""Adapters from `peft` on parts of a model, and those that belong to another base."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.backends.lora.conftest import SOME, Both, opened, ours, reference, trained, with_peft
from tunix_rt.batches.batch import Batch
from tunix_rt.errors import ModelError
from tunix_rt.models.adapter import module_name
from tunix_rt.models.adapter_folder import read_adapter
from tunix_rt.models.adapter_merge import merge
from tunix_rt.models.folder import read_architecture

pytestmark = [  # what `peft` makes transformers say, and that it corrects `fan_in_fan_out` by itself
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
]
PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "a layer": ("llama", {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": 1}),
    "layers, by a pattern": (
        "gpt2",
        {"target_modules": ["c_attn"], "layers_to_transform": [0], "layers_pattern": ["h", "layers"]},
    ),
    "an expression": ("llama", {"target_modules": r".*\.1\.(self_attn\.[qv]_proj|mlp\.up_proj)"}),
    "whole names": (
        "llama",
        {"target_modules": ["model.layers.0.self_attn.k_proj", "model.layers.1.self_attn.v_proj", "0.mlp.down_proj"]},
    ),
    "excluded": ("llama", {"target_modules": "all-linear", "exclude_modules": ["v_proj", "layers.0.mlp.up_proj"]}),
    "ranks": (
        "llama",
        {"target_modules": "all-linear", "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\..*": 6}}
        | {"alpha_pattern": {"model.layers.0.self_attn.v_proj": 3, "o_proj": 1}, "exclude_modules": ["gate_proj"]},
    ),
    "ranks of GPT-2": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "rank_pattern": {"0.attn.c_proj": 7}}),
    "ranks, rslora": ("llama", {"target_modules": ["q_proj"], "rank_pattern": {"0.*": 2}, "use_rslora": True}),
}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.slow
def test_an_adapter_on_parts_of_the_model(
    name: str, both: Both, bases: dict[str, Path], setup_of: Any, batch: Batch, tmp_path: Path
) -> None:
    """Some layers or names only, ranks and alphas of their own: computed, trained and saved, merged, gone on with."""
    import peft

    family, chosen = PARTS[name]
    base, theirs = bases[family], tmp_path / "theirs"
    config = peft.LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, task_type="CAUSAL_LM", **chosen)
    made = peft.get_peft_model(opened(base), config).eval()
    made.save_pretrained(theirs)
    expected = reference(made, batch)
    merge(theirs, base, tmp_path / "merged")
    np.testing.assert_allclose(reference(opened(tmp_path / "merged"), batch), expected, atol=1e-4)
    adapter, _ = read_adapter(theirs, read_architecture(base))
    target = tuple(module_name(module) for module in adapter.modules)
    setup = setup_of(base, target=target, rslora=adapter.rslora, path=str(theirs))
    losses = {}
    for backend_name, backend in both.items():
        np.testing.assert_allclose(ours(backend, base, theirs, batch), expected, atol=1e-4)
        losses[backend_name], folder = trained(backend, backend.load(base, setup), batch, 2, tmp_path / backend_name)
        assert load_file(folder / "adapter_model.safetensors").keys() == adapter.shapes.keys()
        np.testing.assert_allclose(
            ours(backend, base, folder, batch), reference(with_peft(base, folder), batch), atol=1e-4
        )
        on, _ = trained(backend, backend.restore(folder, base, setup), batch, 1, tmp_path / f"{backend_name} on")
        assert on[0] < losses[backend_name][0]
        losses[backend_name] += on
    np.testing.assert_allclose(losses["jax"], losses["torch"], rtol=1e-5)


def test_going_on_from_an_adapter_needs_the_base_it_belongs_to(
    both: Both, bases: dict[str, Path], family: str, setup_of: Any, batch: Batch, tmp_path: Path
) -> None:
    """Prevents: an adapter trained further on a base of the same shapes and other weights."""
    start = both["torch"].load(bases[family], setup_of(bases[family], target=SOME[family]))
    (_, folder), other = trained(both["torch"], start, batch, 1, tmp_path / "adapter"), tmp_path / "other"
    shutil.copytree(bases[family], other)
    stored = {file: load_file(file) for file in other.glob("*.safetensors")}
    for file, tensors in stored.items():
        save_file({name: tensor + 1 for name, tensor in tensors.items()}, file, metadata={"format": "pt"})
    for name, backend in both.items():
        with pytest.raises(ModelError, match=r"other: not the model that the adapter .* was trained on"):
            backend.load(other, setup_of(other, target=SOME[family], path=str(folder)))
        assert backend.load(bases[family], setup_of(bases[family], target=SOME[family], path=str(folder))), name


@pytest.mark.filterwarnings("ignore:.* changes the base weights of the model:UserWarning")
@pytest.mark.parametrize("kind", ["pissa", "olora"])
def test_an_adapter_that_changed_its_base_is_refused_and_peft_s_conversion_of_it_computed(
    kind: str, both: Both, bases: dict[str, Path], batch: Batch, tmp_path: Path
) -> None:
    """Added to the base as it is, it would be off by its first B A: 0.1 in these log-probabilities."""
    import peft

    base, torch_backend = bases["llama"], both["torch"]
    config = peft.LoraConfig(
        r=4, lora_alpha=4, target_modules=["q_proj", "up_proj"], init_lora_weights=kind, task_type="CAUSAL_LM"
    )
    made = peft.get_peft_model(opened(base), config).eval()
    made.peft_config["default"].init_lora_weights = True  # as peft's documentation saves the initial adapter
    made.save_pretrained(tmp_path / "initial")
    made.peft_config["default"].init_lora_weights = kind
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.1)
    expected = reference(made, batch)
    made.save_pretrained(tmp_path / "as_it_is")
    made.save_pretrained(tmp_path / "plain", path_initial_model_for_weight_conversion=str(tmp_path / "initial"))
    with pytest.raises(ModelError, match=rf"init_lora_weights: '{kind}' changes the base's weights"):
        ours(torch_backend, base, tmp_path / "as_it_is", batch)
    np.testing.assert_allclose(ours(torch_backend, base, tmp_path / "plain", batch), expected, atol=1e-4)
