"""Maps `model_type` to the family's module in this folder. A new family is a module and a line here."""

from __future__ import annotations

from typing import Protocol

from tunix_rt.errors import ModelError
from tunix_rt.files import JsonObject
from tunix_rt.models.families import gpt2, llama, mistral, olmo2, smollm3
from tunix_rt.models.families.architecture import Architecture, Shape
from tunix_rt.models.families.gemma import Gemma
from tunix_rt.models.families.names import Names, Tensor, tensors
from tunix_rt.models.families.qwen import Qwen


class Family(Protocol):
    """The interface of a family's module."""

    @property
    def NAMES(self) -> Names:  # noqa: N802 (a constant of a module)
        """The names of its tensors."""

    def from_config(self, config: JsonObject, where: str) -> Architecture:
        """See `llama.from_config`."""


FAMILIES: dict[str, Family] = {
    "gemma2": Gemma("gemma2"),
    "gemma3_text": Gemma("gemma3_text"),
    "gpt2": gpt2,
    "llama": llama,
    "mistral": mistral,
    "olmo2": olmo2,
    "qwen2": Qwen("qwen2"),
    "qwen3": Qwen("qwen3"),
    "smollm3": smollm3,
}


def read(config: JsonObject, where: str) -> Architecture:
    """The architecture that a config.json declares. Raises ModelError naming an unsupported family or field."""
    return family_of(config, where).from_config(config, where)


def family_of(config: JsonObject, where: str) -> Family:
    """The family that `model_type` of a config.json names. Raises ModelError listing those supported."""
    name = config.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise ModelError(f"{where}: model_type {name!r} is not supported; supported: {', '.join(sorted(FAMILIES))}")
    return FAMILIES[name]


def names_of(architecture: Architecture) -> Names:
    """The tensor names of its family."""
    return FAMILIES[architecture.family].NAMES


def tensors_of(architecture: Architecture) -> tuple[Tensor, ...]:
    """Every tensor of its model folder, in the order of a forward pass; a tied head has no tensor."""
    return tensors(architecture, names_of(architecture))


def tensor_shapes(architecture: Architecture) -> dict[str, Shape]:
    """Name and shape of each tensor of its model folder."""
    return {tensor.name: tensor.shape for tensor in tensors_of(architecture)}
