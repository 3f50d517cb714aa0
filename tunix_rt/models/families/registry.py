"""Maps `model_type` to the family's module in this folder. A new family is a module and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tunix_rt.errors import ModelError
from tunix_rt.files import JsonObject
from tunix_rt.models.families import gemma, gpt2, llama, mistral, olmo2, olmoe, qwen, smollm3
from tunix_rt.models.families.architecture import EXPERT, Architecture, Shape, layer_parts, whole_parts
from tunix_rt.models.families.fields import Fields
from tunix_rt.models.families.names import LLAMA_NAMES, Names, Tensor


@dataclass(frozen=True, slots=True)
class Family:
    """How the family's config.json is read, and the names of its tensors."""

    from_config: Callable[[Fields], Architecture]
    """See `llama.from_config`."""
    names: Names = LLAMA_NAMES


FAMILIES = {
    "gemma2": Family(gemma.gemma2, gemma.NAMES),
    "gemma3_text": Family(gemma.gemma3, gemma.NAMES),
    "gpt2": Family(gpt2.from_config, gpt2.NAMES),
    "llama": Family(llama.from_config),
    "mistral": Family(mistral.from_config),
    "mixtral": Family(mistral.mixtral, mistral.MIXTRAL_NAMES),
    "olmo2": Family(olmo2.from_config, olmo2.NAMES),
    "olmoe": Family(olmoe.from_config),
    "qwen2": Family(qwen.qwen2),
    "qwen2_moe": Family(qwen.qwen2_moe),
    "qwen3": Family(qwen.qwen3),
    "qwen3_moe": Family(qwen.qwen3_moe),
    "smollm3": Family(smollm3.from_config),
}

PLAIN: dict[str, tuple[object, ...]] = {
    "quantization_config": (None,),
    "auto_map": (None,),
    "is_causal": (True, None),
    "transformers_weights": (None,),
}
"""Fields that `transformers` reads whatever the family, and the values for which our computation is correct: weights
that are no floats, code of the repository, attention to what follows, weights in a file of another name."""


def read(config: JsonObject, where: str) -> Architecture:
    """The architecture that a config.json declares. Raises ModelError naming an unsupported family or field."""
    name = config.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise ModelError(f"{where}: model_type {name!r} is not supported; supported: {', '.join(sorted(FAMILIES))}")
    fields = Fields(config, where)
    for field, allowed in PLAIN.items():
        fields.plain(field, *allowed)
    return FAMILIES[name].from_config(fields)


def names_of(architecture: Architecture) -> Names:
    """The tensor names of its family."""
    return FAMILIES[architecture.family].names


def tensors_of(architecture: Architecture) -> tuple[Tensor, ...]:
    """Every tensor of its model folder, in the order of a forward pass; a tied head has no tensor."""
    names, outside = names_of(architecture), whole_parts(architecture)

    def whole(own: str) -> Tensor:
        return Tensor(names.whole[own], outside[own], own, None, (outside[own],), False)

    found = [whole(own) for own in ("embedding", "positions") if own in outside]
    for layer in range(architecture.num_layers):
        for own, pieces in layer_parts(architecture).items():
            called = names.parts[own]
            if own in EXPERT:
                called = tuple(name.format(number) for number in range(len(pieces) // len(called)) for name in called)
            groups = (pieces,) if len(called) == 1 else tuple((piece,) for piece in pieces)
            for name, group in zip(called, groups, strict=True):
                full = names.base + names.layer.format(layer) + name
                found.append(_of_layer(full, own, layer, group, names.transposed))
    return (*found, *(whole(own) for own in ("norm", "norm_bias", "head") if own in outside))


def _of_layer(name: str, own: str, layer: int, pieces: tuple[Shape, ...], transposed: bool) -> Tensor:
    shape: Shape = (sum(piece[0] for piece in pieces), *pieces[0][1:])
    turned = transposed and len(shape) == 2
    return Tensor(name, shape[::-1] if turned else shape, own, layer, pieces, turned)


def tensor_shapes(architecture: Architecture) -> dict[str, Shape]:
    """Name and shape of each tensor of its model folder."""
    return {tensor.name: tensor.shape for tensor in tensors_of(architecture)}
