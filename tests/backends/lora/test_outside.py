"""Adapters from `peft` that change embeddings, head or norms: opened as a model they are what was trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.backends.lora.conftest import Both, opened, ours, reference
from tests.families import CASES, write
from tunix_rt.batches.batch import Batch
from tunix_rt.config.model import FolderModel
from tunix_rt.errors import ModelError
from tunix_rt.models.adapter_folder import read_adapter
from tunix_rt.models.adapter_merge import merge
from tunix_rt.models.folder import read_architecture
from tunix_rt.models.sources import materialise

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:.*(tie_word_embeddings|ensure_weight_tying|save_embedding_layers).*:UserWarning"
    ),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to:UserWarning"),
]
LOW: dict[str, dict[str, Any]] = {
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens"], "use_rslora": True},
    "both, own ranks": {"target_modules": r".*(v_proj|embed_tokens|lm_head)", "rank_pattern": {"lm_head": 7}},
}
SAVED: dict[str, dict[str, Any]] = {
    "saved head": {"target_modules": "all-linear", "modules_to_save": ["lm_head"]},
    "saved embeddings": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "saved both, norms": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head", "norm"]},
    "saved layers": {"target_modules": ["q_proj"], "modules_to_save": ["mlp", "model.norm"]},
}
TIED = ("head", "embeddings", "saved head", "saved embeddings", "saved both, norms")
CASES_OF = [
    *((family, name, False) for family in ("tied", "untied") for name in LOW | SAVED),
    *(("tied", name, True) for name in TIED),
    ("gpt2", "lookups", False),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    one = {"tied": {"num_hidden_layers": 1, "tie_word_embeddings": True}, "untied": {"num_hidden_layers": 1}}
    changed = {name: replace(CASES["llama"], changes=CASES["llama"].changes | more) for name, more in one.items()}
    cases = changed | {"gpt2": replace(CASES["gpt2"], changes=CASES["gpt2"].changes | {"n_layer": 1})}
    return {name: write(tmp_path_factory.mktemp("base"), case) for name, case in cases.items()}


def made_by_peft(base: Path, folder: Path, rows: int | None = None, **chosen: Any) -> Any:
    """A model that `peft` trained, as it were: every number it trains is random. `rows`: of the embeddings, resized."""
    import peft

    torch.manual_seed(0)
    model = opened(base)
    if rows is not None:
        model.resize_token_embeddings(rows)
    copied = {key: list(value) if isinstance(value, list) else value for key, value in chosen.items()}
    config = peft.LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, task_type="CAUSAL_LM", **copied)
    made = peft.get_peft_model(model, config).eval()
    with torch.no_grad():
        for weight in made.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.05)
    made.save_pretrained(folder)
    return made


@pytest.mark.parametrize(("family", "name", "tying"), CASES_OF)
def test_merged_it_is_the_model_that_was_trained(
    family: str, name: str, tying: bool, models: dict[str, Path], both: Both, batch: Batch, tmp_path: Path
) -> None:
    """As `peft` computes the two; of a tied model, whose `merge_and_unload` is another, before it is merged there."""
    chosen = (LOW | SAVED | {"lookups": {"target_modules": ["c_attn", "wte", "wpe", "lm_head"]}})[name]
    made = made_by_peft(models[family], tmp_path / "adapter", **chosen, ensure_weight_tying=tying)
    expected = reference(made, batch)
    merge(tmp_path / "adapter", models[family], tmp_path / "merged")
    np.testing.assert_allclose(reference(opened(tmp_path / "merged"), batch), expected, atol=1e-4)
    np.testing.assert_allclose(ours(both["torch"], tmp_path / "merged", None, batch), expected, atol=1e-4)
    assert read_architecture(tmp_path / "merged").tie_embeddings == (
        tying or (family == "tied" and name == "saved layers")
    )
    if family == "untied":
        np.testing.assert_allclose(reference(made.merge_and_unload(), batch), expected, atol=1e-4)


@pytest.mark.parametrize("family", ["tied", "untied"])
def test_embeddings_with_more_rows(family: str, models: dict[str, Path], batch: Batch, tmp_path: Path) -> None:
    """Tokens that were added before training, as chat fine-tunes do."""
    chosen = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}
    made = made_by_peft(models[family], tmp_path / "adapter", rows=57, **chosen)
    found = materialise(FolderModel(kind="folder", path=str(tmp_path / "adapter")), tmp_path / "cache")
    assert read_architecture(found).vocab_size == 57
    np.testing.assert_allclose(reference(opened(found), batch), reference(made, batch), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("head", r"target_modules: lm_head: outside of the layers"),
        ("saved layers", r"modules_to_save: \['mlp', 'model.norm'\] were trained whole"),
    ],
)
def test_going_on_with_it_is_refused_and_the_way_named(
    name: str, field: str, models: dict[str, Path], tmp_path: Path
) -> None:
    made_by_peft(models["untied"], tmp_path / "adapter", **(LOW | SAVED)[name])
    with pytest.raises(ModelError, match=rf"{field}.*: model=from_path model.source.path=.*adapter"):
        read_adapter(tmp_path / "adapter", read_architecture(models["untied"]))


def test_a_tied_head_with_another_scaling_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    """`peft` gives the head the embeddings' A and B, and its own factor."""
    made_by_peft(models["tied"], tmp_path / "adapter", **LOW["both, own ranks"], ensure_weight_tying=True)
    with pytest.raises(ModelError, match="ensure_weight_tying: with another rank or alpha for the head than"):
        merge(tmp_path / "adapter", models["tied"], tmp_path / "merged")


def test_whole_tensors_that_do_not_fit_are_named(models: dict[str, Path], tmp_path: Path) -> None:
    folder, base = tmp_path / "adapter", models["untied"]
    made_by_peft(base, folder, **SAVED["saved both, norms"])
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    embeddings, head = "base_model.model.model.embed_tokens.weight", "base_model.model.lm_head.weight"

    def refused(changed: dict[str, Any], message: str, **fields: Any) -> None:
        save_file(changed, file, metadata={"format": "pt"})
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | fields))
        with pytest.raises(ModelError, match=message):
            merge(folder, base, tmp_path / "merged")

    refused({key: value for key, value in tensors.items() if key != head}, r"lm_head.weight: missing in the folder")
    strange = {"base_model.model.score.weight": tensors[head]}
    refused(tensors | strange, r"score.weight: there in the folder, missing in the model")
    longer = {embeddings: np.concatenate([tensors[embeddings]] * 2)}
    refused(tensors | longer, r"lm_head.weight: \(53, 24\) in the folder, \(106, 24\) in the model")
    refused(tensors, r"modules_to_save: 'lm_head', expected a list of names", modules_to_save="lm_head")
    with pytest.raises(ModelError, match=r"holds whole tensors \(.*weight.*\); it can be opened as a model"):
        (folder / "adapter_config.json").write_text(
            json.dumps(json.loads((folder / "adapter_config.json").read_text()) | {"modules_to_save": None})
        )
        read_adapter(folder, read_architecture(base))
