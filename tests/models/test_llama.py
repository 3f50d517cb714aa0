"""The Llama page against transformers' own configuration and model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tunix_rt.errors import ModelError
from tunix_rt.models.families import llama
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.registry import family_of

GROUPED = Architecture("llama", 11, 16, 24, 2, 4, 2, 4, 32, 5000.0, 1e-5, True)
MANY = [
    GROUPED,
    replace(GROUPED, tie_embeddings=False, num_kv_heads=4),
    replace(GROUPED, head_dim=8, num_kv_heads=1, rope_theta=10000.0),
]


@pytest.mark.parametrize("architecture", MANY)
def test_config_is_read_back(architecture: Architecture) -> None:
    assert llama.from_config(llama.to_config(architecture), "here") == architecture


@pytest.mark.parametrize("architecture", MANY)
def test_transformers_builds_the_same_tensors(architecture: Architecture) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**llama.to_config(architecture)))
    theirs = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if architecture.tie_embeddings:
        del theirs["lm_head.weight"]
    assert llama.tensor_shapes(architecture) == theirs
    assert architecture.num_parameters == model.num_parameters()


def test_config_written_by_transformers_is_read(tmp_path: Path) -> None:
    from transformers import LlamaConfig

    written = LlamaConfig(
        vocab_size=11,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    written.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert "rope_parameters" in config
    assert family_of(config, "here").from_config(config, "here") == GROUPED


def test_older_names_and_defaults() -> None:
    config = {
        "vocab_size": 11,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "rope_theta": 300.0,
        "rope_scaling": None,
        "head_dim": None,
        "num_key_value_heads": None,
    }
    found = llama.from_config(config, "here")
    assert (found.rope_theta, found.head_dim, found.num_kv_heads) == (300.0, 4, 4)
    assert (found.max_positions, found.norm_eps, found.tie_embeddings) == (2048, 1e-6, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rope_scaling", {"rope_type": "llama3", "factor": 8.0}),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}),
        ("rope_parameters", {"rope_type": "default", "partial_rotary_factor": 0.5}),
        ("rope_scaling", "linear"),
        ("attention_bias", True),
        ("mlp_bias", True),
        ("hidden_act", "gelu"),
        ("sliding_window", 128),
        ("rope_interleaved", True),
        ("quantization_config", {"bits": 4}),
        ("auto_map", {"AutoModel": "code.py"}),
        ("hidden_size", "16"),
        ("num_hidden_layers", True),
        ("intermediate_size", None),
        ("num_key_value_heads", 3),
        ("head_dim", 5),
        ("rope_theta", -1.0),
        ("tie_word_embeddings", "yes"),
    ],
)
def test_what_would_change_the_mathematics_is_refused_by_name(name: str, value: object) -> None:
    config = llama.to_config(GROUPED)
    if name == "rope_theta":
        del config["rope_parameters"]
    with pytest.raises(ModelError, match=rf"^here: {name}") as caught:
        llama.from_config(config | {name: value}, "here")
    assert "\n" not in str(caught.value)


def test_foreign_family_lists_the_supported() -> None:
    with pytest.raises(ModelError, match=r"here: model_type 'mamba' is not supported; supported: llama"):
        family_of({"model_type": "mamba"}, "here")
