"""The text part of models that read images, against transformers' own text-only pass of the whole model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.families import DIVIDED
from tunix_rt.config.model import FolderModel
from tunix_rt.errors import ModelError
from tunix_rt.models.folder import read_architecture, read_config, read_stop_ids, read_weights
from tunix_rt.models.sources import content_digest, materialise
from tunix_rt.models.wrapped import TEXTS, WRAPPERS

CASES = {
    "gemma3": ("Gemma3", "Gemma3Text", "Siglip"),
    "llava, llama": ("Llava", "Llama", "CLIP"),
    "llava, mistral": ("Llava", "Mistral", "CLIP"),
    "llava, qwen2": ("Llava", "Qwen2", "CLIP"),
    "llava, qwen3": ("Llava", "Qwen3", "CLIP"),
    "llava_next": ("LlavaNext", "Llama", "CLIP"),
    "mistral3": ("Mistral3", "Mistral", "Pixtral"),
}
SCALED = {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "sliding_window": 5}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def whole_model(name: str) -> Any:
    """The whole model, random."""
    import torch
    import transformers

    torch.manual_seed(0)
    outer, inner, vision = CASES[name]
    numbers = DIVIDED | {"vocab_size": 53, "intermediate_size": 36, "num_hidden_layers": 7, "head_dim": 6}
    numbers |= {"initializer_range": 0.3, "max_position_embeddings": 96, "pad_token_id": 0, "bos_token_id": None}
    text = getattr(transformers, f"{inner}Config")(**numbers, **(SCALED if name == "gemma3" else {}))
    eyes = getattr(transformers, f"{vision}VisionConfig")(**VISION, image_size=28, patch_size=14)
    config = getattr(transformers, f"{outer}Config")(text_config=text, vision_config=eyes)
    config.eos_token_id = [1, 3]
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{outer}ForConditionalGeneration")(config)
    model.generation_config.eos_token_id = [1, 3]
    return model.eval()


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    """Model and folder of a case, made once."""
    made: dict[str, tuple[Any, Path]] = {}

    def whole(name: str) -> tuple[Any, Path]:
        if name not in made:
            model, folder = whole_model(name), tmp_path_factory.mktemp("whole")
            model.save_pretrained(folder)
            made[name] = model, folder
        return made[name]

    return whole


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(input_ids=torch.arange(1, 40)[None]).logits[0].numpy()


@pytest.mark.parametrize("name", CASES)
def test_text_alone_passes_as_through_the_whole_model(
    name: str, wholes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plain transformers computes from the folder what it computes from the whole one."""
    from transformers import AutoModelForCausalLM

    model, folder = wholes(name)
    source = FolderModel(kind="folder", path=str(folder))
    capsys.readouterr()
    text = materialise(source, tmp_path)
    assert capsys.readouterr().err.strip() == (
        f"warning: {folder}: only its text part is used, without images; left out: "
        f"{'image_newline, ' if name == 'llava_next' else ''}multi_modal_projector, vision_tower"
    )
    assert materialise(source, tmp_path) == text
    assert text.name == f"{folder.name}-text-{text.name[-12:]}" and content_digest(source)
    again = AutoModelForCausalLM.from_pretrained(text, attn_implementation="eager").eval()
    assert type(again).__name__ == read_config(text)["architectures"][0]
    np.testing.assert_allclose(logits(again), logits(model), rtol=1e-5, atol=1e-4)
    weights = read_weights(text)
    theirs = {name.replace("language_model.", ""): value for name, value in model.state_dict().items()}
    assert all(np.array_equal(value, theirs[name].numpy()) for name, value in weights.items())
    assert read_stop_ids(text) == (1, 3)
    assert read_architecture(text).tie_embeddings == (name in ("gemma3", "mistral3"))


def test_other_prefixes_and_a_head_beside_tied_embeddings(wholes: Any, tmp_path: Path) -> None:
    """transformers 4.52 to 4.57 wrote `model.language_model.`; Mistral Small 3.1 has a head, and no word of tying."""
    _, folder = wholes("mistral3")
    tensors = load_file(folder / "model.safetensors")
    renamed = {
        name.replace("language_model.model.", "model.language_model.").replace("vision_tower", "model.vision_tower"): x
        for name, x in tensors.items()
    }
    head = np.ones((53, 24), np.float32)
    (tmp_path / "new").mkdir()
    save_file(renamed | {"lm_head.weight": head}, tmp_path / "new" / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    del config["tie_word_embeddings"]
    (tmp_path / "new" / "config.json").write_text(json.dumps(config))
    text = materialise(FolderModel(kind="folder", path=str(tmp_path / "new")), tmp_path / "cache")
    weights = read_weights(text)
    assert not read_architecture(text).tie_embeddings and np.array_equal(weights["lm_head.weight"], head)
    embedding = tensors["language_model.model.embed_tokens.weight"]
    assert np.array_equal(weights["model.embed_tokens.weight"], embedding)


@pytest.mark.parametrize(
    ("change", "tensor", "message"),
    [
        ({"model_type": "phi3"}, None, r"text_config\.model_type 'phi3' is not supported; supported: gemma3_text"),
        ({"hidden_act": "relu"}, None, "hidden_act: 'relu' is not supported"),
        ({"num_hidden_layers": 8}, None, r"(?s)do not fit config.json.*layers\.7.*missing in the folder"),
        ({"quantization_config": {"bits": 4}}, None, "quantization_config: .* is not supported"),
        ({}, "model.language_model.norm.weight", r"model\.norm\.weight, under two names; leave one of them"),
        ({}, "model.adapter.weight", r"model\.adapter\.weight: neither of the text part nor of images"),
    ],
)
def test_what_does_not_fit_is_named(
    change: dict[str, Any], tensor: str | None, message: str, wholes: Any, tmp_path: Path
) -> None:
    _, folder = wholes("llava, llama")
    config = json.loads((folder / "config.json").read_text())
    (config if "quantization_config" in change else config["text_config"]).update(change)
    (tmp_path / "config.json").write_text(json.dumps(config))
    more = {} if tensor is None else {tensor: np.ones(1, np.float32)}
    save_file(load_file(folder / "model.safetensors") | more, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=message):
        materialise(FolderModel(kind="folder", path=str(tmp_path)), tmp_path / "cache")


def test_a_cap_that_only_the_text_part_would_apply_is_refused(wholes: Any, tmp_path: Path) -> None:
    _, folder = wholes("gemma3")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["final_logit_softcapping"] = 2.0
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"text_config\.final_logit_softcapping: 2\.0 has no effect in a gemma3, but"):
        materialise(FolderModel(kind="folder", path=str(tmp_path)), tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "targets", "older"),
    [
        ("gemma3", "all-linear", False),
        ("llava, llama", r".*language_model.layers.\d.mlp.(up|down)_proj", False),
        ("mistral3", ["model.language_model.layers.3.self_attn.q_proj", "v_proj"], False),
        ("llava, qwen2", "all-linear", True),
    ],
)
@pytest.mark.filterwarnings("ignore:The following rank_pattern keys:RuntimeWarning")
def test_an_adapter_on_the_whole_model_lies_on_its_text_part(
    name: str, targets: Any, older: bool, wholes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named as `peft` names it today, and before transformers 4.52; merged by us, it computes what `peft` computes."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    _, folder = wholes(name)
    model = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager").eval()
    ranks = {"model.language_model.layers.1.mlp.up_proj": 3, "layers.3.self_attn.q_proj": 2}
    torch.manual_seed(0)
    whole = peft.get_peft_model(
        model, peft.LoraConfig(r=4, rank_pattern=ranks, target_modules=targets, init_lora_weights=False)
    )
    adapter = tmp_path / "adapter"
    whole.save_pretrained(adapter)
    if older:
        new, old = "model.language_model.", "language_model.model."
        tensors = load_file(adapter / "adapter_model.safetensors")
        save_file({key.replace(new, old): x for key, x in tensors.items()}, adapter / "adapter_model.safetensors")
        config = (adapter / "adapter_config.json").read_text()
        (adapter / "adapter_config.json").write_text(config.replace(new, old))
    text = materialise(FolderModel(kind="folder", path=str(adapter)), tmp_path / "cache")
    again = AutoModelForCausalLM.from_pretrained(text, attn_implementation="eager").eval()
    np.testing.assert_allclose(logits(again), logits(whole), rtol=1e-5, atol=2e-4)
    seen = not str(targets).startswith(".*language_model")
    assert (f"{adapter}: only its text part is used" in capsys.readouterr().err) == seen


def test_defaults_are_those_of_transformers() -> None:
    """A wrapper's config.json leaves out what equals them: that of gemma-3-4b-it has six fields."""
    from transformers import CONFIG_MAPPING

    for name, text in TEXTS.items():
        theirs = CONFIG_MAPPING[name]().to_dict()
        assert text.defaults == {key: theirs[key] for key in text.defaults}, name
        short = {"model_type": name} | text.defaults
        assert short.keys() >= {"vocab_size", "hidden_size", "num_attention_heads", "max_position_embeddings"}
    for name, (usual, tied) in WRAPPERS.items():
        config = CONFIG_MAPPING[name]()
        assert (config.text_config.model_type, config.tie_word_embeddings) == (usual, tied), name
