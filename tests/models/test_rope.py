"""Rotary positions: frequencies and attention factor of every kind of scaling against those of transformers."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from tests.families import LLAMA3, LONGROPE, YARN
from tests.models.test_families import config_of
from tunix_rt.models.families import registry
from tunix_rt.models.families.rope import KINDS, rotary_frequencies

THREE = [1.0, 1.5, 4.0]
ROPES: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 3.0},
    "llama3": LLAMA3,
    "dynamic": {"rope_type": "dynamic", "factor": 8.0},
    "yarn": YARN,
    "yarn, Qwen's card": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 40},
    "yarn, no original": {"rope_type": "yarn", "factor": 2.0},
    "yarn, no rounding": YARN | {"truncate": False, "beta_fast": 4.0, "beta_slow": 0.5},
    "yarn, one place": YARN | {"original_max_position_embeddings": 4, "rope_theta": 1e6, "beta_slow": 30.0},
    "yarn, attention": YARN | {"attention_factor": 1.7, "mscale": 2.0, "mscale_all_dim": 0.5},
    "yarn, DeepSeek": YARN | {"mscale": 2.0, "mscale_all_dim": 0.5},
    "yarn, factor below 1": YARN | {"factor": 0.5},
    "longrope": {"rope_type": "longrope", "short_factor": THREE, "long_factor": THREE, "factor": 4.0},
    "longrope, ratio": {"rope_type": "longrope", "short_factor": THREE, "long_factor": THREE[::-1]}
    | {"original_max_position_embeddings": 32},
    "longrope, attention": LONGROPE | {"attention_factor": 1.3},
}


@pytest.mark.parametrize("top", [False, True])
@pytest.mark.parametrize("name", ROPES)
def test_frequencies_equal_those_of_transformers(name: str, top: bool) -> None:
    """`top`: the original length is a field of its own, as Phi 3 writes it."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    width = 6 if "longrope" in name else 16
    values = {key: item for key, item in config_of("llama").items() if key != "rope_parameters"} | {"head_dim": width}
    values |= {"rope_scaling": ROPES[name]} | ({"original_max_position_embeddings": 24} if top else {})
    architecture = registry.read(values, "here")
    rope = architecture.layers[0].rope
    theirs = LlamaConfig(**copy.deepcopy(values))  # it writes into the dict
    kind = theirs.rope_parameters["rope_type"]
    expected, attention = ROPE_INIT_FUNCTIONS[kind](theirs)
    assert rope is not None and rope.attention_factor == pytest.approx(attention, rel=1e-12)
    np.testing.assert_allclose(rotary_frequencies(rope, width), expected.numpy(), rtol=3e-7)
    original = theirs.rope_parameters.get("original_max_position_embeddings", 96)
    differ = kind == "longrope" and ROPES[name]["short_factor"] != ROPES[name]["long_factor"]
    assert architecture.max_positions == (original if differ else 96)


def test_every_kind_is_compared() -> None:
    assert {case.get("rope_type", case.get("type")) for case in ROPES.values()} | {"default"} == set(KINDS)
