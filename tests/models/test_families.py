"""Each family's page against transformers' own configuration and model: numbers, names, and nothing ignored."""

from __future__ import annotations

import importlib
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.families import CASES, LLAMA3, as_in_files
from tunix_rt.errors import ModelError
from tunix_rt.models.families import llama, registry
from tunix_rt.models.families.architecture import Architecture, LayerKind
from tunix_rt.models.families.fields import alike
from tunix_rt.models.families.rope import Rope, rotary_frequencies

GROUPED = Architecture(
    family="llama",
    vocab_size=11,
    hidden_size=16,
    intermediate_size=24,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    max_positions=32,
    layers=alike(2, Rope(5000.0)),
    norm_eps=1e-5,
    tie_embeddings=True,
    attention_scale=0.5,
)

WITHOUT_EFFECT = set(
    "architectures dtype torch_dtype transformers_version model_type use_cache initializer_range bos_token_id "
    "eos_token_id pad_token_id attention_dropout resid_pdrop embd_pdrop attn_pdrop pretraining_tp output_attentions "
    "output_hidden_states return_dict id2label label2id problem_type chunk_size_feed_forward is_encoder_decoder "
    "summary_type summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout "
    "summary_last_dropout reorder_and_upcast_attn _name_or_path tokenizer_class default_theta default_rope_type "
    "ignore_keys_at_rope_validation num_labels router_aux_loss_coef".split()
)
"""Fields that say how a model was made, is trained or is fed; `reorder_and_upcast_attn` changes rounding only.
Dropout is off here unless declared; `router_aux_loss_coef` counts with `output_router_logits`, which is refused."""
ELSEWHERE = set(
    "rope_theta partial_rotary_factor original_max_position_embeddings sliding_window layer_types head_dim".split()
    # of layers that these families do not have: heads of classifiers, multi-token prediction, chunks
    + "attention_chunk_size classifier_dropout hidden_dropout token_classification_bias mtp_hidden_states_first".split()
    + "mtp_layer_types chain_hidden_post_norm logits_mup_width_multiplier unpadded_vocab_size".split()
    + "num_kv_shared_layers".split()
    # how it is initialised, loaded, trained, placed
    + "init_std initializer_factor gradient_checkpointing distributed_config fusion_config sep_token_id".split()
)
"""Fields that a configuration class need not declare: tested below, or of no effect in the families read here."""
LAYER_BY_LAYER = ("layer_types", "no_rope_layers")


def config_of(name: str) -> dict[str, Any]:
    """What transformers writes to config.json."""
    return json.loads(CASES[name].config.to_json_string(use_diff=False)) | {"model_type": CASES[name].config.model_type}


@pytest.mark.parametrize("name", CASES)
def test_transformers_builds_the_same_tensors(name: str) -> None:
    import torch
    import transformers

    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(CASES[name].config)
    architecture = registry.read(config_of(name), "here")
    theirs = {name: tuple(value.shape) for name, value in as_in_files(model, model.state_dict()).items()}
    if architecture.tie_embeddings:
        del theirs["lm_head.weight"]
    assert registry.tensor_shapes(architecture) == theirs
    assert architecture.num_parameters == model.num_parameters()


@pytest.mark.parametrize("name", CASES)
def test_no_field_of_the_family_is_ignored(name: str) -> None:
    """Every field of transformers' own configuration class changes what we compute, is refused, or has no effect."""
    config = config_of(name)
    before = registry.read(config, "here")
    known = {item.name for item in fields(type(CASES[name].config))} | set(config)
    checked = 0
    for field in sorted(known - WITHOUT_EFFECT):
        if field.startswith("_") or (value := config.get(field)) == {}:
            continue
        # A list that says it layer by layer goes before the numbers from which it was made.
        made = () if field in LAYER_BY_LAYER else LAYER_BY_LAYER
        changed = {name: item for name, item in config.items() if name not in made} | {field: other_than(value)}
        try:
            after = registry.read(changed, "here")
        except ModelError as error:
            assert field in str(error)
        else:
            assert after != before, f"{name}: {field}={value!r} can be changed and nobody notices"
        checked += 1
    assert checked > 8


@pytest.mark.parametrize("name", sorted({case.kind for case in CASES.values()}))
def test_every_attribute_that_transformers_code_looks_up_is_known(name: str) -> None:
    """Not only the fields of the configuration class: its code also asks for others, which a config.json may hold."""
    import inspect
    import re

    import transformers
    from transformers import masking_utils, modeling_layers, modeling_rope_utils, modeling_utils

    config = getattr(transformers, f"{name}Config")
    model = importlib.import_module(config.__module__.replace("configuration", "modeling"))
    declared = {item.name for item in fields(config)} | set(config.attribute_map)
    asked = set()
    for module in (model, masking_utils, modeling_layers, modeling_rope_utils, modeling_utils):
        asked |= set(re.findall(r"(?:get|has)attr\((?:self\.)?config, ['\"](\w+)['\"]", inspect.getsource(module)))
    strange = asked - declared - WITHOUT_EFFECT - set(registry.PLAIN) - ELSEWHERE
    assert not strange, f"{strange}: does it change what {name} computes?"


def other_than(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value * 2 or 1
    return (
        ["strange"] if isinstance(value, list) else {"rope_type": "strange"} if isinstance(value, dict) else "strange"
    )


def test_config_of_a_llama_from_scratch_is_read_back() -> None:
    assert registry.read(llama.to_config(GROUPED), "here") == GROUPED


def test_older_names_and_defaults() -> None:
    config = {
        "model_type": "llama",
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
    found = registry.read(config, "here")
    assert (found.layers, found.head_dim, found.num_kv_heads) == (alike(2, Rope(300.0)), 4, 4)
    assert (found.max_positions, found.norm_eps, found.tie_embeddings) == (2048, 1e-6, False)
    scaled = registry.read(config | {"rope_scaling": {"type": "linear", "factor": 2.0}}, "here")
    assert scaled.layers == alike(2, Rope(300.0, "linear", 2.0))
    third = registry.read(config | {"rope_scaling": LLAMA3 | {"rope_theta": None}}, "here")
    assert third.layers == alike(2, Rope(300.0, "llama3", 8.0, 1.0, 4.0, 32))


@pytest.mark.parametrize("name", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize("inside", [{}, {"original_max_position_embeddings": 64}])
@pytest.mark.parametrize("beside", [{}, {"original_max_position_embeddings": 16}])
def test_the_length_of_pretraining_may_stand_inside_or_beside(
    name: str, inside: dict[str, int], beside: dict[str, int]
) -> None:
    """transformers gives the one beside the priority, when the model is built (modeling_rope_utils.py)."""
    import transformers
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    scaling = {key: value for key, value in LLAMA3.items() if key != "original_max_position_embeddings"}
    config = llama.to_config(replace(GROUPED, head_dim=16)) | {name: scaling | inside, "max_position_embeddings": 128}
    theirs = LlamaRotaryEmbedding(transformers.LlamaConfig(**config, **beside)).inv_freq
    rope = registry.read(config | beside, "here").layers[0].rope
    assert rope is not None and rope.original_positions == {"length": 128, **inside, **beside}.popitem()[1]
    np.testing.assert_allclose(rotary_frequencies(rope, 16), theirs.numpy(), rtol=1e-6)


def test_gemma_3_before_transformers_5() -> None:
    """The hub's gemma-3-1b-pt says rope_theta, rope_local_base_freq and sliding_window_pattern."""
    new = config_of("gemma3")
    old = {name: value for name, value in new.items() if name not in ("rope_parameters", "layer_types")}
    old |= {"rope_theta": 1000.0, "rope_local_base_freq": 100.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}
    old |= {"sliding_window_pattern": 2}
    assert registry.read(old, "here") == registry.read(new, "here")
    near, far = LayerKind(Rope(100.0), 5), LayerKind(Rope(1000.0, "linear", 4.0), None)
    assert registry.read(new, "here").layers == (near, far, near)


def test_gpt2_takes_the_names_of_other_families() -> None:
    """As in transformers (`attribute_map`), where they win over its own."""
    import transformers

    from tunix_rt.models.families.gpt2 import GENERAL

    assert transformers.GPT2Config.attribute_map == GENERAL
    own = config_of("gpt2")
    general = {name: own[here] for name, here in GENERAL.items()}
    rest = {name: value for name, value in own.items() if name not in general.keys() | set(GENERAL.values())}
    assert registry.read(rest | general, "here") == registry.read(own, "here")
    wrong = {"n_embd": 2 * own["n_embd"], "hidden_size": own["n_embd"]}
    assert transformers.GPT2Config(**wrong).n_embd == registry.read(own | wrong, "here").hidden_size == own["n_embd"]


def test_the_older_name_of_a_kind_has_no_effect_in_gemma_3() -> None:
    import transformers

    old = {name: value for name, value in config_of("gemma3").items() if name != "rope_parameters"}
    old |= {"rope_theta": 1000.0, "rope_scaling": {"type": "linear", "factor": 4.0}}
    theirs = transformers.Gemma3TextConfig(**old).rope_parameters
    (far,) = {layer.rope for layer in registry.read(old, "here").layers if layer.window is None}
    assert theirs["full_attention"]["rope_type"] == "default" and far == Rope(1000.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rope_scaling", {"rope_type": "proportional", "factor": 8.0}),
        ("short_factor", {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}),
        ("rope_scaling", {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0, 0]}),
        ("rope_scaling", {"type": "linear"}),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}),
        ("rope_parameters", {"rope_type": "default", "partial_rotary_factor": 0.5}),
        ("rope_scaling", "linear"),
        ("attention_bias", "yes"),
        ("hidden_act", "relu"),
        ("sliding_window", 128),
        ("rope_interleaved", True),
        ("quantization_config", {"bits": 4}),
        ("auto_map", {"AutoModel": "code.py"}),
        ("is_causal", False),
        ("transformers_weights", "other.safetensors"),
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
    field = "rope_scaling" if name == "short_factor" else name
    with pytest.raises(ModelError, match=rf"^here: {name}") as caught:
        registry.read(config | {field: value}, "here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("case", "name", "value"),
    [
        ("gemma3", "layer_types", ["full_attention"]),
        ("gemma3", "sliding_window", None),
        ("gemma3", "attn_logit_softcapping", 50.0),
        ("gemma3", "use_bidirectional_attention", True),
        ("gemma2", "hidden_activation", "relu"),
        ("smollm3", "no_rope_layers", [1, 2]),
        ("smollm3", "layer_types", ["chunked_attention"] * 3),
        ("qwen3", "max_window_layers", "all"),
        ("mistral", "layer_types", ["full_attention"] * 3),
        ("gpt2", "scale_attn_by_inverse_layer_idx", True),
        ("gpt2", "n_head", 3),
        ("qwen3_moe", "mlp_only_layers", [0]),
        ("qwen3_moe", "decoder_sparse_step", 2),
        ("qwen3_moe", "output_router_logits", True),
        ("qwen3_moe", "num_experts_per_tok", 6),
        ("qwen3_moe", "num_experts", 6),  # transformers 5 writes num_local_experts, and would not read this one
        ("qwen3_moe", "layer_types", ["full_attention"]),
        ("olmoe", "sliding_window", 8),
        ("mixtral", "num_local_experts", None),
        ("mixtral", "router_jitter_noise", 0.1),
    ],
)
def test_other_families_refuse_by_name(case: str, name: str, value: object) -> None:
    with pytest.raises(ModelError, match=rf"^here: {name}"):
        registry.read(config_of(case) | {name: value}, "here")


@pytest.mark.parametrize("case", ["qwen3_moe", "olmoe"])
def test_the_number_of_experts_has_two_names(case: str) -> None:
    """The hub's Qwen 3 says num_experts, what transformers 5 makes of it num_local_experts."""
    config = config_of(case)
    count = config.pop("num_local_experts", None) or config.pop("num_experts")
    for name in ("num_experts", "num_local_experts"):
        assert registry.read(config | {name: count}, "here") == registry.read(config_of(case), "here")


def test_of_many_experts_few_are_active() -> None:
    """3 of 5 experts of 3 matrices [7, 20]."""
    architecture = registry.read(config_of("qwen3_moe"), "here")
    assert architecture.num_parameters - architecture.num_active_parameters == 2 * 3 * 7 * 20
    assert GROUPED.num_active_parameters == GROUPED.num_parameters


def test_foreign_family_lists_the_supported() -> None:
    with pytest.raises(ModelError, match=r"here: model_type 'mamba' is not supported; supported: .*gpt2, llama"):
        registry.read({"model_type": "mamba"}, "here")


def test_a_bare_model_and_constants_of_old_exports(tmp_path: Path) -> None:
    """The hub's gpt2 has no prefix and stores its causal masks."""
    from safetensors.numpy import load_file, save_file

    from tests.families import write
    from tunix_rt.models.folder import read_weights

    folder = write(tmp_path, CASES["gpt2"])
    before = read_weights(folder)
    tensors = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("transformer."): value for name, value in tensors.items()}
    save_file(bare | {"h.0.attn.bias": np.ones((1, 1, 96, 96), np.bool_)}, folder / "model.safetensors")
    after = read_weights(folder)
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[name], before[name]) for name in before)
