"""The families that a GGUF file can hold, and what the programs that read one compute of each.

A GGUF file says less than a config.json: what it does not say, llama.cpp has fixed for each architecture (src/models/).
A model that differs from that is refused, since the file would be read as another model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tunix_rt.errors import ModelError
from tunix_rt.models.families.architecture import Activation, Architecture
from tunix_rt.models.families.rope import Rope

NO_ROPE_EVERY = 4
"""SmolLM3: every fourth layer has no positions (llama.cpp, n_no_rope_layer_step)."""
LARGEST_GEMMA = {"gemma2": 46, "gemma3_text": 62}
"""Number of layers of the 27B models, whose scores are scaled by the width over the heads (f_attention_scale)."""


@dataclass(frozen=True, slots=True)
class GgufFamily:
    """A family in GGUF, and what is fixed of it there."""

    name: str
    """`general.architecture`."""
    transformers: str
    """`architectures` in config.json."""
    permuted: bool = False
    """Queries and keys have rotary pairs as neighbours."""
    factors: bool = False
    """Any rotary scaling can be said, by what each frequency is divided by."""
    windows: bool = False
    """Windows can be said."""
    biases: tuple[str, ...] = ("none",)
    """What `Architecture.attention_bias` may be."""
    own_head: bool = False
    """There always is a matrix for the head, if need be a copy of the embeddings."""
    tied: bool = False
    """There never is one."""
    square: bool = False
    """The heads together are as wide as the model."""
    normalised: bool = False
    """The weights of a token's experts are divided by their sum."""
    activation: Activation = "silu"


FAMILIES = {
    "gemma2": GgufFamily("gemma2", "Gemma2ForCausalLM", windows=True, tied=True, activation="gelu_tanh"),
    "gemma3_text": GgufFamily("gemma3", "Gemma3ForCausalLM", windows=True, activation="gelu_tanh"),
    "gpt2": GgufFamily("gpt2", "GPT2LMHeadModel", biases=("all",), activation="gelu_tanh"),
    "llama": GgufFamily("llama", "LlamaForCausalLM", permuted=True, factors=True, biases=("none", "all")),
    "mistral": GgufFamily("llama", "MistralForCausalLM", permuted=True, factors=True),
    "mixtral": GgufFamily("llama", "MixtralForCausalLM", permuted=True, factors=True, normalised=True),
    "olmo2": GgufFamily("olmo2", "Olmo2ForCausalLM", own_head=True, square=True),
    "olmoe": GgufFamily("olmoe", "OlmoeForCausalLM", own_head=True, square=True),
    "qwen2": GgufFamily("qwen2", "Qwen2ForCausalLM", biases=("inputs",)),
    "qwen2_moe": GgufFamily("qwen2moe", "Qwen2MoeForCausalLM", biases=("none", "inputs"), own_head=True, square=True),
    "qwen3": GgufFamily("qwen3", "Qwen3ForCausalLM"),
    "qwen3_moe": GgufFamily("qwen3moe", "Qwen3MoeForCausalLM", normalised=True),
    "smollm3": GgufFamily("smollm3", "SmolLM3ForCausalLM", permuted=True, biases=("none", "all")),
}
"""`model_type` of config.json → its family."""
ARCHITECTURES = tuple(dict.fromkeys(family.name for family in FAMILIES.values()))
"""What `general.architecture` may be."""


def model_type_of(name: str, experts: bool) -> str:
    """The `model_type` of a `general.architecture`: a Mistral is a Llama there, and a Llama with experts a Mixtral."""
    if name == "llama":
        return "mixtral" if experts else "llama"
    return next(model_type for model_type, family in FAMILIES.items() if family.name == name)


def family_of(architecture: Architecture) -> GgufFamily:
    """The family of a model that is to be written. Raises ModelError: none, or another computation."""
    family = FAMILIES.get(architecture.family)
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise ModelError(f"GGUF: the package gguf names no architecture for {architecture.family}; known: {known}")
    for problem in _problems(architecture, family):
        raise ModelError(
            f"GGUF: {problem}, which a GGUF file of {family.name} cannot say: llama.cpp would compute another model; "
            "plain transformers and vLLM open the model folder as it is"
        )
    return family


def longest_context(architecture: Architecture, family: GgufFamily) -> int:
    """Positions up to which the file computes what the model does: where windows cannot be said, they end there."""
    windows = [kind.window for kind in architecture.layers if kind.window is not None]
    return architecture.max_positions if family.windows else min([architecture.max_positions, *windows])


def _problems(a: Architecture, family: GgufFamily) -> Iterator[str]:
    if a.attention_bias not in family.biases:
        yield f"its attention has biases {a.attention_bias!r}"
    if a.activation != family.activation:
        yield f"its activation is {a.activation}"
    if family.square and (a.num_heads * a.head_dim != a.hidden_size):
        yield f"its {a.num_heads} heads of {a.head_dim} are not as wide as the model, {a.hidden_size}"
    if family.tied and not a.tie_embeddings:
        yield "its head is not its embeddings"
    if a.qkv_limit is not None:
        yield f"clip_qkv is {a.qkv_limit}"
    if a.family == "olmoe" and a.num_kv_heads != a.num_heads:
        yield "its keys have fewer heads than its queries"
    if a.family == "gemma2" and None in (a.score_cap, a.logit_cap):
        yield "it has no caps of scores and logits"
    if a.experts is not None and a.experts.normalised != family.normalised:
        yield f"norm_topk_prob is {str(a.experts.normalised).lower()}"
    if a.attention_scale != attention_scalar(a) ** -0.5:
        yield f"its scores are scaled by {a.attention_scale:g}"
    yield from _layer_problems(a, family)


def attention_scalar(a: Architecture) -> int:
    """The number by whose root llama.cpp divides the scores."""
    largest = a.num_layers == LARGEST_GEMMA.get(a.family)
    return a.hidden_size // a.num_heads if largest else a.head_dim


def _layer_problems(a: Architecture, family: GgufFamily) -> Iterator[str]:
    rotated = [kind.rope is not None for kind in a.layers]
    if a.family == "smollm3" and rotated != [(layer + 1) % NO_ROPE_EVERY != 0 for layer in range(a.num_layers)]:
        yield f"its layers without positions are not every fourth ({[int(turned) for turned in rotated]})"
    if family.windows and period(a) is None:
        yield "its layers with a window do not come in periods"
    near = {kind.rope for kind in a.layers if kind.window is not None and family.windows}
    everywhere = {kind.rope for kind in a.layers if kind.rope is not None} - near
    for rope in (*everywhere, *near):
        if rope is not None and (problem := _rope_problem(rope, family)):
            yield problem
    if a.family == "gemma3_text" and any(rope is not None and rope.scaling != "default" for rope in near):
        yield "its layers with a window have scaled positions"


def _rope_problem(rope: Rope, family: GgufFamily) -> str | None:
    if rope.scaling in ("llama3", "longrope"):
        if not family.factors:
            return f"its positions are scaled as {rope.scaling}"
        return None if rope.attention_factor == 1 else f"its rotary attention_factor is {rope.attention_factor:g}"
    if rope.scaling == "yarn":
        usual = Rope(
            rope.theta, "yarn", rope.factor, original_positions=rope.original_positions, attention_factor=yarn(rope)
        )
        return None if rope == usual else "its yarn has an attention_factor, beta or truncation of its own"
    return None


def yarn(rope: Rope) -> float:
    """The attention factor of arXiv 2309.00071, as llama.cpp has it."""
    return 1.0 if rope.factor <= 1 else 0.1 * math.log(rope.factor) + 1.0


def period(a: Architecture) -> int | None:
    """The k for which all layers but every k-th have a window (1: none has one); None if there is no such k."""
    windows = [kind.window is not None for kind in a.layers]
    for every in range(1, len(windows) + 2):
        if windows == [(layer + 1) % every != 0 for layer in range(len(windows))]:
            return every
    return None
