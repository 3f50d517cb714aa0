"""Fresh weights: from the seed and the tensor's name alone, and a folder that transformers loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.families import CASES
from tunix_rt.config.model import FreshModel, ScratchModel
from tunix_rt.errors import ModelError
from tunix_rt.models.folder import read_architecture, read_weights
from tunix_rt.models.initialise import write_fresh

MakeFolder = Callable[..., Path]


def test_each_tensor_has_its_own_stream(small: FreshModel, tmp_path: Path) -> None:
    def weights(name: str, source: FreshModel, seed: int) -> dict[str, np.ndarray]:
        write_fresh(tmp_path / name, source, vocab_size=11, seed=seed, pad_id=0, end_id=1)
        return read_weights(tmp_path / name)

    first = weights("a", small, 0)
    again = weights("b", small, 0)
    other = weights("c", small, 1)
    deeper = weights("d", replace(small, num_hidden_layers=3), 0)
    assert len(deeper) == len(first) + 9
    for name, value in first.items():
        assert np.array_equal(value, again[name])
        assert np.array_equal(value, deeper[name]), "another layer must not move the numbers of this one"
        if value.ndim > 1:
            assert not np.array_equal(value, other[name])
    flat = np.concatenate([value.ravel() for value in first.values() if value.ndim > 1])
    assert len(np.unique(flat)) > 0.99 * len(flat), "no two tensors share a stream"


@pytest.mark.parametrize("scaled", [False, True])
def test_scale_of_each_tensor(small: FreshModel, tmp_path: Path, scaled: bool) -> None:
    source = replace(small, hidden_size=64, intermediate_size=96, scale_residual_init=scaled)
    write_fresh(tmp_path, source, vocab_size=300, seed=3, pad_id=0, end_id=1)
    for name, value in read_weights(tmp_path).items():
        if value.ndim == 1:
            assert np.all(value == 1), name
            continue
        residual = name.endswith(("o_proj.weight", "down_proj.weight"))
        expected = 0.1 / 2 if scaled and residual else 0.1  # sqrt(2 * 2 layers) = 2
        assert value.std() == pytest.approx(expected, rel=5 / np.sqrt(value.size)), name
        assert abs(value.mean()) < 5 * expected / np.sqrt(value.size), name


def test_transformers_loads_it(make_folder: MakeFolder) -> None:
    from transformers import AutoModelForCausalLM

    folder = make_folder(tie_word_embeddings=False)
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    weights = read_weights(folder)
    assert all(np.array_equal(value.numpy(), weights[name]) for name, value in model.state_dict().items())
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (1, 0)


@pytest.mark.parametrize("case", ["gpt2", "gemma3", "qwen2", "qwen2_moe", "mixtral"])
def test_any_family_starts_from_scratch(case: str, tmp_path: Path) -> None:
    """Norms that scale by one (Gemma's weights are then 0), biases of zero, and a folder that transformers loads."""
    from transformers import AutoModelForCausalLM

    config = json.loads(CASES[case].config.to_json_string(use_diff=False))
    config |= {"model_type": CASES[case].config.model_type}
    del config["vocab_size"]
    source = ScratchModel(kind="scratch", config=config, initializer_range=0.1, scale_residual_init=True)
    write_fresh(tmp_path, source, vocab_size=29, seed=0, pad_id=0, end_id=1)
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.get_input_embeddings().weight.shape[0] == 29
    scale = 0 if case == "gemma3" else 1
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            assert (weight == (0 if name.endswith("bias") else scale)).all(), name
    assert model.num_parameters() == read_architecture(tmp_path).num_parameters


def test_a_declared_config_that_is_not_supported_is_named(tmp_path: Path) -> None:
    source = ScratchModel(
        kind="scratch", config={"model_type": "gpt2", "n_embd": 8}, initializer_range=0.1, scale_residual_init=False
    )
    with pytest.raises(ModelError, match=r"^model\.source\.config: n_head: missing"):
        write_fresh(tmp_path, source, vocab_size=29, seed=0, pad_id=0, end_id=1)
    few = replace(source, config=source.config | {"vocab_size": 28})
    with pytest.raises(ModelError, match=r"vocab_size: 28, but the tokenizer has 29 tokens"):
        write_fresh(tmp_path, few, vocab_size=29, seed=0, pad_id=0, end_id=1)
