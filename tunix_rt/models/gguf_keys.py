"""The metadata keys of a GGUF file: which are read, which change nothing; every other is refused.

The lists follow llama.cpp (src/llama-arch.cpp, src/llama-model.cpp, src/llama-vocab.cpp) and `gguf.constants.Keys`.
The keys of a family are listed as Llama's (`llama.`). Only keys of the model, the tokenizer and of other kinds of files
count; what else a tool writes is for people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tunix_rt.errors import ModelError

READ = frozenset(
    """
    general.architecture general.type
    llama.context_length llama.embedding_length llama.block_count llama.feed_forward_length
    llama.attention.head_count llama.attention.head_count_kv llama.attention.key_length
    llama.attention.layer_norm_rms_epsilon llama.attention.causal
    llama.rope.dimension_count llama.rope.freq_base
    llama.rope.scaling.type llama.rope.scaling.factor llama.rope.scaling.attn_factor llama.rope.scale_linear
    llama.rope.scaling.original_context_length llama.rope.scaling.yarn_ext_factor llama.rope.scaling.yarn_attn_factor
    llama.rope.scaling.yarn_beta_fast llama.rope.scaling.yarn_beta_slow
    tokenizer.ggml.model tokenizer.ggml.pre tokenizer.ggml.tokens tokenizer.ggml.token_type tokenizer.ggml.merges
    tokenizer.ggml.scores tokenizer.ggml.add_space_prefix
    tokenizer.ggml.bos_token_id tokenizer.ggml.eos_token_id tokenizer.ggml.eot_token_id tokenizer.ggml.eom_token_id
    tokenizer.ggml.unknown_token_id tokenizer.ggml.padding_token_id tokenizer.ggml.add_bos_token
    tokenizer.chat_template tokenizer.chat_templates
    """.split()
)
WITHOUT_EFFECT = frozenset(
    """
    llama.vocab_size llama.attention.value_length llama.tensor_data_layout
    llama.rope.scaling.finetuned tokenizer.ggml.token_type_count
    tokenizer.ggml.remove_extra_whitespaces tokenizer.ggml.precompiled_charsmap
    tokenizer.ggml.add_eos_token tokenizer.ggml.add_sep_token
    tokenizer.ggml.seperator_token_id tokenizer.ggml.mask_token_id
    tokenizer.ggml.fim_pre_token_id tokenizer.ggml.fim_suf_token_id tokenizer.ggml.fim_mid_token_id
    tokenizer.ggml.fim_pad_token_id tokenizer.ggml.fim_rep_token_id tokenizer.ggml.fim_sep_token_id
    tokenizer.ggml.prefix_token_id tokenizer.ggml.suffix_token_id tokenizer.ggml.middle_token_id
    tokenizer.huggingface.json tokenizer.rwkv.world
    split.no split.tensors.count
    """.split()
)
"""Sizes that the tensors say; what these two kinds of tokenizer have no use for; what a
tokenizer puts behind a text, since a trace says itself where it ends; ids of tokens that are like others."""
PLAIN: dict[str, tuple[object, ...]] = {
    "general.type": ("model",),
    "llama.attention.causal": (True,),
    "llama.rope.scaling.attn_factor": (1.0,),
    "llama.rope.scaling.yarn_ext_factor": (1.0, -1.0),
    "llama.rope.scaling.yarn_attn_factor": (1.0,),
    "llama.rope.scaling.yarn_beta_fast": (32.0,),
    "llama.rope.scaling.yarn_beta_slow": (1.0,),
}
"""Keys that are read to require the value for which the computation is correct."""
NAMED_TEMPLATE = "tokenizer.chat_template."
SPACES = ("general.type", "llama.", "tokenizer.", "adapter.", "clip.", "split.")
"""Beginnings of the keys that can change what the file is, computes or reads."""
NOTHING: tuple[object, ...] = (None, 0, "", "none")


def check_keys(file: Path, keys: Iterable[str], value_of: Callable[[str], Any], family: str = "llama") -> None:
    """Raise ModelError naming file and key if the value of a key changes the mathematics and is not supported."""
    for key in keys:
        listed = f"llama.{key.removeprefix(f'{family}.')}" if key.startswith(f"{family}.") else key
        if not listed.startswith(SPACES) or listed in WITHOUT_EFFECT or key.startswith(NAMED_TEMPLATE):
            continue
        if listed in PLAIN:
            if value_of(key) not in PLAIN[listed]:
                raise ModelError(f"{file}: {key}: {value_of(key)!r} is not supported, only {PLAIN[listed][0]!r}")
        elif listed not in READ and value_of(key) not in NOTHING:
            raise ModelError(f"{file}: {key}: {value_of(key)!r} is not supported")
