"""LoRA as numbers: which matrices get an adapter, its shapes, its initial values, and merging it into the weights.

The adapter adds `scaling` * B A to a matrix W [out, in], with A [rank, in] and B [out, rank] (arXiv 2106.09685).
Names are those of `peft` (0.21): `base_model.model.<module>.lora_A.weight`. Uses no file and no framework.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tunix_rt.config.model import LoraAdapter
from tunix_rt.errors import ModelError
from tunix_rt.models.families.architecture import Architecture, Shape
from tunix_rt.models.families.names import HEAD, Tensor
from tunix_rt.models.families.registry import tensors_of
from tunix_rt.models.folder import Float32, Weights, stream

Side = Literal["A", "B"]
PREFIX = "base_model.model."
LOOKUPS = ("embedding", "positions")
"""Parts whose rows are looked up: `peft` holds their A and B as those of the transposed matrix."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter without its weights."""

    rank: int
    alpha: float
    rslora: bool
    dropout: float
    """Share of the adapter's inputs that a training step drops."""
    modules: tuple[Tensor, ...]
    """The matrices that get an adapter, in the order of a forward pass."""
    exceptions: tuple[tuple[str, int, float], ...] = ()
    """Names of matrices with another rank or alpha, and these two."""

    def size_of(self, module: Tensor) -> tuple[int, float]:
        """Rank and alpha of a matrix's adapter."""
        exceptions = {name: (rank, alpha) for name, rank, alpha in self.exceptions}
        return exceptions.get(module_name(module), (self.rank, self.alpha))

    def scaling_of(self, module: Tensor) -> float:
        """Factor of a matrix's B A: alpha / rank, or alpha / sqrt(rank) with `rslora` (arXiv 2312.03732)."""
        rank, alpha = self.size_of(module)
        return alpha / (math.sqrt(rank) if self.rslora else rank)

    @property
    def shapes(self) -> dict[str, Shape]:
        """Name and shape of each tensor of the adapter."""
        found: dict[str, Shape] = {}
        for module in self.modules:
            out, width = module.matrix_shape
            rank, _ = self.size_of(module)
            found |= {tensor_name(module, "A"): (rank, width), tensor_name(module, "B"): (out, rank)}
        return found


def tensor_name(module: Tensor, side: Side) -> str:
    """The name `peft` gives to A or B of a matrix."""
    lookup = module.canonical_name in LOOKUPS
    return f"{PREFIX}{module_name(module)}.lora_{f'embedding_{side}' if lookup else f'{side}.weight'}"


def module_name(module: Tensor) -> str:
    """The matrix's place in the model: `model.layers.0.self_attn.q_proj`."""
    return module.name.removesuffix(".weight")


def linear(architecture: Architecture) -> tuple[Tensor, ...]:
    """Every matrix of every layer; neither embeddings nor the head (what `peft` calls `all-linear`).

    Without routers and experts, of which `peft` (0.21) takes some in one family and none in another.
    """
    return tuple(tensor for tensor in tensors_of(architecture) if tensor.takes_adapter)


def outside(architecture: Architecture) -> tuple[Tensor, ...]:
    """The matrices outside of the layers, the head even if it is tied; those that are looked up count as transposed."""
    found = [tensor for tensor in tensors_of(architecture) if tensor.layer is None and len(tensor.shape) == 2]
    if architecture.tie_embeddings:
        found.append(replace(found[0], name=HEAD, canonical_name="head"))
    return tuple(replace(tensor, transposed=tensor.canonical_name in LOOKUPS) for tensor in found)


def declared(config: LoraAdapter, architecture: Architecture) -> Adapter:
    """The adapter that a config declares for a model. Raises ModelError: a target that the family does not have."""
    modules = linear(architecture)
    if config.target != "all-linear":
        strange = [target for target in config.target if not any(fits(module, target) for module in modules)]
        if strange:
            what = f"the family {architecture.family} has no {strange[0]!r}"
            if any(fits(module, strange[0]) for module in outside(architecture)):
                what = f"{strange[0]!r} is outside of the layers, where an adapter can be merged, but is not trained"
            raise ModelError(f"model.adapter.target: {what}; it has {', '.join(short_names(modules, modules))}")
        modules = tuple(module for module in modules if any(fits(module, target) for target in config.target))
    return Adapter(config.rank, config.alpha, config.rslora, config.dropout, modules)


def fits(module: Tensor, target: str) -> bool:
    """Whether a target names the matrix: it matches the end of the matrix's name, as in `peft`."""
    return f".{module_name(module)}".endswith(f".{target}")


def short_names(modules: tuple[Tensor, ...], among: tuple[Tensor, ...]) -> tuple[str, ...]:
    """The shortest name suffixes that match `modules` and no other matrix in `among`, the matrices of the model."""
    chosen: dict[str, None] = {}
    for module in modules:
        words = module_name(module).split(".")
        ends = (".".join(words[-count:]) for count in range(1, len(words) + 1))
        name = next(end for end in ends if all(other in modules for other in among if fits(other, end)))
        chosen[name] = None
    return tuple(chosen)


def fresh(adapter: Adapter, seed: int) -> Weights:
    """B is zero, so that training starts at the base; A is uniform within 1/sqrt(in), as `peft` draws it.

    (Kaiming, arXiv 1502.01852, with a = sqrt(5).) Each tensor has its own random stream, seeded by seed and name.
    """
    weights: Weights = {}
    for name, shape in adapter.shapes.items():
        if ".lora_B." in name:
            weights[name] = np.zeros(shape, np.float32)
        else:
            drawn = stream(seed, name).random(shape, dtype=np.float32)
            weights[name] = (2 * drawn - 1) * np.float32(1 / math.sqrt(shape[1]))
    return weights


def merged(weights: Mapping[str, Float32], adapter: Adapter, tensors: Mapping[str, Float32]) -> Weights:
    """The base's `weights` with the adapter merged in."""
    whole = dict(weights)
    for module in adapter.modules:
        scaling = np.float32(adapter.scaling_of(module))
        addition = tensors[tensor_name(module, "B")] @ tensors[tensor_name(module, "A")] * scaling
        whole[module.name] = weights[module.name] + (addition.T if module.transposed else addition)
    return whole
