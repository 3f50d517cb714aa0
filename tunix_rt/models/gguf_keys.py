"""The metadata keys of a GGUF file: which are read, which change nothing; every other is refused.

The lists follow llama.cpp (src/llama-arch.cpp, src/llama-model.cpp, src/llama-vocab.cpp) and `gguf.constants.Keys`.
`{family}` is `general.architecture`. Only keys of the model, the tokenizer and of other kinds of files count; what else
a tool writes is for people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tunix_rt.errors import ModelError

READ = frozenset(
    """
    general.architecture general.type
    {family}.context_length {family}.embedding_length {family}.block_count {family}.feed_forward_length
    {family}.attention.head_count {family}.attention.head_count_kv {family}.attention.key_length
    {family}.attention.layer_norm_rms_epsilon {family}.attention.causal
    {family}.rope.dimension_count {family}.rope.freq_base
    {family}.rope.scaling.type {family}.rope.scaling.factor {family}.rope.scaling.attn_factor {family}.rope.scale_linear
    {family}.rope.scaling.original_context_length
    {family}.rope.scaling.yarn_ext_factor {family}.rope.scaling.yarn_attn_factor
    {family}.rope.scaling.yarn_beta_fast {family}.rope.scaling.yarn_beta_slow
    tokenizer.ggml.model tokenizer.ggml.pre tokenizer.ggml.tokens tokenizer.ggml.token_type tokenizer.ggml.merges
    tokenizer.ggml.scores tokenizer.ggml.add_space_prefix
    tokenizer.ggml.bos_token_id tokenizer.ggml.eos_token_id tokenizer.ggml.eot_token_id tokenizer.ggml.eom_token_id
    tokenizer.ggml.unknown_token_id tokenizer.ggml.padding_token_id tokenizer.ggml.add_bos_token
    tokenizer.chat_template tokenizer.chat_templates
    """.split()
)
_WINDOWS = "attention.sliding_window attention.sliding_window_pattern final_logit_softcapping"
_EXPERTS = "expert_count expert_used_count"
READ_OF = {
    "gemma2": f"{_WINDOWS} attn_logit_softcapping",
    "gemma3": f"{_WINDOWS} rope.freq_base_swa",
    "gpt2": "attention.layer_norm_epsilon",
    "llama": _EXPERTS,
    "olmoe": _EXPERTS,
    "qwen2moe": f"{_EXPERTS} expert_feed_forward_length expert_shared_feed_forward_length",
    "qwen3moe": f"{_EXPERTS} expert_feed_forward_length",
}
"""`general.architecture` → further keys that are read, without it in front."""
WITHOUT_EFFECT = frozenset(
    """
    {family}.vocab_size {family}.attention.value_length {family}.tensor_data_layout
    {family}.rope.scaling.finetuned tokenizer.ggml.token_type_count
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
"""Sizes that the tensors say; what these two kinds of tokenizer have no use for; what a tokenizer puts behind a text,
since a trace says itself where it ends; ids of tokens that are like others."""
PLAIN: dict[str, tuple[object, ...]] = {
    "general.type": ("model",),
    "{family}.attention.causal": (True,),
    "{family}.rope.scaling.attn_factor": (1.0,),
    "{family}.rope.scaling.yarn_ext_factor": (1.0, -1.0),
    "{family}.rope.scaling.yarn_attn_factor": (1.0,),
    "{family}.rope.scaling.yarn_beta_fast": (32.0,),
    "{family}.rope.scaling.yarn_beta_slow": (1.0,),
}
"""Keys that are read to require the value for which the computation is correct."""
NAMED_TEMPLATE = "tokenizer.chat_template."
SPACES = ("general.type", "{family}.", "tokenizer.", "adapter.", "clip.", "split.")
"""Beginnings of the keys that can change what the file is, computes or reads."""
NOTHING: tuple[object, ...] = (None, 0, "", "none")


def keys_of(family: str) -> frozenset[str]:
    """The keys that are read of a file with this `general.architecture`, which is `{family}` in them."""
    return READ | {f"{{family}}.{key}" for key in READ_OF.get(family, "").split()}


def check_keys(file: Path, keys: Iterable[str], value_of: Callable[[str], Any], family: str) -> None:
    """Raise ModelError naming file and key if the value of a key changes the mathematics and is not supported.

    `family`: the file's `general.architecture`, with which the keys of its model begin.
    """
    spaces = tuple(space.format(family=family) for space in SPACES)
    read = keys_of(family)
    for key in keys:
        name = key if not key.startswith(f"{family}.") else "{family}" + key.removeprefix(family)
        if not key.startswith(spaces) or name in WITHOUT_EFFECT or key.startswith(NAMED_TEMPLATE):
            continue
        if name in PLAIN:
            if value_of(key) not in PLAIN[name]:
                raise ModelError(f"{file}: {key}: {value_of(key)!r} is not supported, only {PLAIN[name][0]!r}")
        elif name not in read and value_of(key) not in NOTHING:
            raise ModelError(f"{file}: {key}: {value_of(key)!r} is not supported")
