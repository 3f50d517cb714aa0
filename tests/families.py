"""One tiny random model of each family, in an awkward shape, as `transformers` itself writes it to a folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COMMON = {
    "vocab_size": 53,
    "hidden_size": 20,
    "intermediate_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 6,
    "max_position_embeddings": 96,
    "rms_norm_eps": 1e-5,
    "initializer_range": 0.3,
    "eos_token_id": [1, 3],
    "pad_token_id": 0,
    "bos_token_id": None,
}
"""Three heads of 6 do not divide a width of 20; one key and value head; 53 is no multiple of 8."""
DIVIDED = {"hidden_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2}
"""For families whose configuration insists on heads that divide the width."""
ONE_LAYER = {"num_hidden_layers": 1}
"""For families whose layers are all alike."""
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.25, 2.0],
    "long_factor": [1.5, 3.0, 9.0],
    "original_max_position_embeddings": 48,
}


@dataclass(frozen=True)
class Case:
    """What `transformers` is asked to build, and how it is to be stored."""

    kind: str
    """The name of its configuration's class, without `Config`."""
    changes: dict[str, Any]
    save: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float32"

    @property
    def config(self) -> Any:
        """Its configuration."""
        import transformers

        taken = {} if self.kind == "GPT2" else COMMON
        return getattr(transformers, f"{self.kind}Config")(**(taken | self.changes))


CASES = {
    "gpt2": Case(
        "GPT2",
        {"vocab_size": 53, "n_embd": 20, "n_layer": 3, "n_head": 2, "n_inner": 36, "n_positions": 96}
        | {"initializer_range": 0.3, "eos_token_id": [1, 3], "pad_token_id": 0, "bos_token_id": None},
    ),
    "llama": Case("Llama", DIVIDED | {"head_dim": 10, "num_key_value_heads": 1}, {"max_shard_size": "6KB"}),
    "llama 3, biases": Case(
        "Llama",
        DIVIDED | {"head_dim": 16, "rope_parameters": LLAMA3, "attention_bias": True, "mlp_bias": True},
        dtype="bfloat16",
    ),
    "llama, dynamic": Case(
        "Llama",
        DIVIDED
        | {"head_dim": 6, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}}
        | ONE_LAYER,
    ),
    "llama, longrope": Case("Llama", DIVIDED | {"head_dim": 6, "rope_parameters": LONGROPE} | ONE_LAYER),
    "mistral": Case("Mistral", {"sliding_window": 5, "tie_word_embeddings": True}),
    "qwen2": Case(
        "Qwen2", DIVIDED | {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1, "head_dim": 6}
    ),
    "qwen3": Case(
        "Qwen3",
        {"tie_word_embeddings": True, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2},
        {"max_shard_size": "6KB"},
    ),
    "qwen3, yarn": Case(
        "Qwen3",
        {"head_dim": 16, "rope_parameters": YARN, "use_sliding_window": True, "sliding_window": 6}
        | {"max_window_layers": 1},
    ),
    "smollm3": Case(
        "SmolLM3", DIVIDED | {"no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": 4}
    ),
    "gemma2": Case(
        "Gemma2",
        DIVIDED
        | {"sliding_window": 5, "query_pre_attn_scalar": 9, "attn_logit_softcapping": 2.0}
        | {"final_logit_softcapping": 3.0},
        dtype="bfloat16",
    ),
    "gemma3": Case(
        "Gemma3Text",
        DIVIDED
        | {"sliding_window": 5, "sliding_window_pattern": 2, "query_pre_attn_scalar": 9}
        | {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            }
        },
    ),
    "olmo2": Case("Olmo2", DIVIDED | {"head_dim": 6}, {"max_shard_size": "6KB"}),
    "qwen3_moe": Case(
        "Qwen3Moe",
        ONE_LAYER
        | {"num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 7}
        | {"norm_topk_prob": True, "use_sliding_window": True, "sliding_window": 6},
        {"max_shard_size": "6KB"},
    ),
    "qwen2_moe": Case(
        "Qwen2Moe",
        DIVIDED
        | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 7}
        | {"shared_expert_intermediate_size": 9, "head_dim": 6}
        | {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2},
    ),
    "olmoe": Case(
        "Olmoe",
        DIVIDED | ONE_LAYER | {"head_dim": 6, "num_experts": 5, "num_experts_per_tok": 2, "clip_qkv": 1.0},
    ),
    "mixtral": Case(
        "Mixtral",
        ONE_LAYER | {"sliding_window": 5, "num_local_experts": 3, "num_experts_per_tok": 2},
        dtype="bfloat16",
    ),
}


def model_of(case: Case) -> Any:
    """A random model whose norms and biases are no constants, computing attention as its family is written."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = case.config
    config._attn_implementation = "eager"  # the only one that caps scores
    config._experts_implementation = "eager"  # the only one for any width
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.3)
            if case.dtype != "float32":
                weight.copy_(weight.to(getattr(torch, case.dtype)))
    model.generation_config.eos_token_id = [1, 3]
    return model.eval()


def as_in_files(model: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    """Tensors by a model's own names → by those of its files: `transformers` 5 keeps the experts of a layer as one."""
    from transformers.core_model_loading import revert_weight_conversion

    found: dict[str, Any] = revert_weight_conversion(model, tensors)
    return found


def write(folder: Path, case: Case) -> Path:
    """The model's folder; half precisions hold the same numbers."""
    import torch

    model_of(case).to(getattr(torch, case.dtype)).save_pretrained(folder, **case.save)
    return folder
