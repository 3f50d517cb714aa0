"""The closed sets from which a config chooses, as plain data: nothing here imports what it names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BackendName = Literal["jax", "torch", "tunix"]
Precision = Literal["float32", "bfloat16"]
GgufDtype = Literal["F32", "F16", "BF16", "Q8_0"]
Quantization = Literal["int8", "nf4"]
Platform = Literal["auto", "cpu", "gpu", "tpu"]
Adapter = Literal[
    "auto",
    "trace",
    "gsm8k",
    "chat",
    "sharegpt",
    "alpaca",
    "prompt_completion",
    "problem_solution",
    "preference",
    "evaluation_set",
]
PARTS: tuple[Adapter, ...] = ("trace", "evaluation_set")
"""Adapters whose records give steps and answer apart (or no text at all): a format renders them."""
RankedBy = Literal["confidence", "length", "sample"]
"""By what answers of one verdict are ranked when pairs are made of them: the mean log-probability of their tokens (the
higher, the better), their length (the shorter, the better), or the order in which they were sampled."""
ReaderName = Literal["auto", "format", "think", "marker", "boxed", "lines", "whole"]
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class BackendFacts:
    """What is known of a backend without importing it."""

    package: str
    """The framework's import name: the backend is installed when this can be found."""
    extra: str
    """The extra of this package that installs the framework."""
    platforms: tuple[str, ...]
    """Platforms that it can run on."""
    devices: bool = True
    """Whether it can compute on several devices."""
    process_per_device: bool = False
    """Whether each device has a process of its own; otherwise all of a host have one."""
    apart: bool = False
    """The extra cannot be installed together with the group `dev`, which needs newer packages."""
    families: tuple[str, ...] | None = None
    """`model_type` of the models it supports; None: every one that is known here."""
    optimizers: tuple[str, ...] | None = None
    """`optimizer.kind` of those it supports; None: every one."""
    gathers_for_optimizer: bool = True
    """Whether optimizers that need tensors whole work with tensor parallelism."""
    parts_of_moments: bool = True
    """Whether of what such an optimizer keeps, shaped as a weight, each device has a part as it has of the weight."""
    adapters: bool = True
    """Whether it supports LoRA."""
    measures_precision: bool = True
    """Whether it can time its products, for `backend.precision=auto` (`backends.rates`)."""
    seed_per_prompt: bool = True
    """Whether each prompt of a batch has its own seed."""
    kept_scores: Literal["all", "of short rows", "none"] = "all"
    """Of which pairs of positions a layer keeps the attention scores for the backward pass, at worst; where rows are
    not short (`backends.limits`) then of a few keys only."""
    splits_experts: bool = True
    """Whether tensor parallelism divides the experts too; otherwise they are whole on every device."""
    copies_head: bool = False
    """Whether decoding has a copy of the output matrix in a layout or a precision of its own."""
    gathers_tied_twice: bool = False
    """Whether sharded embeddings that are the output matrix too are made whole for each of the two uses."""


BACKENDS: dict[str, BackendFacts] = {
    "jax": BackendFacts(
        package="jax",
        extra="jax",
        platforms=("cpu", "gpu", "tpu"),
        kept_scores="of short rows",
        splits_experts=False,
        parts_of_moments=False,
    ),
    "torch": BackendFacts(
        package="torch",
        extra="torch",
        platforms=("cpu", "gpu"),
        process_per_device=True,
        kept_scores="none",
        copies_head=True,
        gathers_tied_twice=True,
        gathers_for_optimizer=False,
    ),
    "tunix": BackendFacts(
        package="tunix",
        extra="tunix",
        platforms=("cpu", "gpu", "tpu"),
        devices=False,
        apart=True,
        families=("gemma3_text", "llama", "mistral", "qwen2", "qwen3"),
        optimizers=("adamw",),
        adapters=False,
        measures_precision=False,
        seed_per_prompt=False,
    ),
}
SPLIT_BY_TYPE = ("qwen2",)
"""Values of `model_type` for which `transformers` splits every text in one way, whatever the tokenizer says
(`MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS` in models/auto/tokenization_auto.py, of the families supported here)."""
