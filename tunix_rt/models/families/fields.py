"""Reading a config.json field by field: errors name the field that is missing, of a wrong type or not supported.

A family's module reads the fields of its config class in `transformers`, or requires the values for which our
computation is correct (`plain`); the rest of a config.json has no effect there and none here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from tunix_rt.errors import ModelError
from tunix_rt.files import JsonObject
from tunix_rt.models.families.architecture import Activation, LayerKind
from tunix_rt.models.families.rope import KINDS, Declared, Rope

T = TypeVar("T")

ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
PRETRAINED = "original_max_position_embeddings"
FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True, slots=True)
class Fields:
    """A config.json; `where` starts every message. All methods raise ModelError."""

    config: JsonObject
    where: str

    def with_defaults(self, **defaults: Any) -> Fields:
        """The same with the defaults of a family's config class for fields that are absent (null is a value)."""
        return Fields(defaults | self.config, self.where)

    def renamed(self, names: Mapping[str, str]) -> Fields:
        """The same with fields under the names that a family has for them: `attribute_map` in `transformers`, where
        the general name wins.
        """
        given = {own: self.config[general] for general, own in names.items() if general in self.config}
        return Fields(self.config | given, self.where)

    def refuse(self, name: str, problem: str) -> ModelError:
        """The error for a field."""
        return ModelError(f"{self.where}: {name}: {problem}")

    def plain(self, name: str, *allowed: Any) -> None:
        """Check that the field is absent or one of `allowed`."""
        if self.config.get(name, allowed[0]) not in allowed:
            raise self.refuse(name, f"{self.config[name]!r} is not supported, only {allowed[0]!r}")

    def count(self, name: str, default: int | None = None) -> int:
        """A positive integer; if absent or null the default, if there is one."""
        value = self.config.get(name)
        return int(self._positive(name, default if value is None else value, int, "integer"))

    def number(self, name: str, default: float | None = None) -> float:
        """A positive number; the default only if absent."""
        return float(self._positive(name, self.config.get(name, default), (int, float), "number"))

    def _positive(self, name: str, value: Any, kinds: type | tuple[type, ...], kind: str) -> Any:
        is_number = isinstance(value, kinds) and not isinstance(value, bool)
        if not is_number or value <= 0:
            raise self.refuse(name, f"{'missing' if value is None else repr(value)}, expected a positive {kind}")
        return value

    def number_or_null(self, name: str, default: float | None = None) -> float | None:
        """A positive number or null."""
        return None if self.config.get(name, default) is None else self.number(name, default)

    def flag(self, name: str, default: bool = False) -> bool:
        """true or false."""
        value = self.config.get(name, default)
        if not isinstance(value, bool):
            raise self.refuse(name, f"{value!r}, expected true or false")
        return value

    def count_or_null(self, name: str) -> int | None:
        """A positive integer or null."""
        return None if self.config.get(name) is None else self.count(name)

    def attention_bias(self) -> Literal["none", "all"]:
        """`attention_bias`: biases on every matrix of attention, or on none."""
        return "all" if self.flag("attention_bias") else "none"

    def choice(self, name: str, known: Mapping[str, T], default: str) -> T:
        """One of the values of `known`, by its key."""
        value = self.config.get(name, default)
        if not isinstance(value, str) or value not in known:
            raise self.refuse(name, f"{value!r} is not supported, only {', '.join(map(repr, known))}")
        return known[value]

    def rope(self, name: str | None = None) -> Rope:
        """The rotary positions of `rope_parameters` (transformers 5) or `rope_scaling` and `rope_theta` (older).

        If both are present, the older wins, and `original_max_position_embeddings` next to them wins over one inside,
        as in `transformers` (5.22, modeling_rope_utils.py). `name`: the kind of layer under which a family nests them.
        """
        field = "rope_scaling" if self.config.get("rope_scaling") else "rope_parameters"
        declared = self._object(field)
        if name is not None:
            nested = self._object("rope_parameters").get(name)
            # `type`, the older name of the kind, does not count beside the default's `rope_type`.
            declared = ({"rope_type": "default"} if nested is None else nested) | self._object("rope_scaling")
            field = f"rope_parameters.{name}" if nested else field
        declared = {key: value for key, value in declared.items() if value is not None}
        if "rope_theta" not in declared:
            declared["rope_theta"] = self.config.get("rope_theta", 10000.0)
            field = field if len(declared) > 1 else "rope_theta"
        if name is None and self.config.get(PRETRAINED) is not None:
            declared[PRETRAINED] = self.config[PRETRAINED]
        return self.rope_of(declared, field)

    def _object(self, name: str) -> JsonObject:
        value = self.config.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.refuse(name, f"expected an object or null, got {value!r}")
        return value or {}

    def rope_of(self, declared: JsonObject, path: str) -> Rope:
        """One declared object of rotary parameters, found at `path`."""
        inner = Fields(declared, f"{self.where}: {path}" if path != "rope_theta" else self.where)
        if declared.get("partial_rotary_factor", 1) != 1:
            raise self.refuse(f"{path}.partial_rotary_factor", "only 1 is supported")
        kind = declared.get("rope_type", declared.get("type", "default"))
        if not isinstance(kind, str) or kind not in KINDS:
            raise self.refuse(path, f"type {kind!r} is not supported, only {', '.join(map(repr, KINDS))}")
        theta, longest = inner.number("rope_theta"), self.count("max_position_embeddings")
        return KINDS[kind].read(Declared(inner, theta, longest, inner.count(PRETRAINED, longest)))

    def windows(self, slides: list[bool], window: int | None) -> list[int | None]:
        """The window of each layer: `window` in those that slide by `layer_types` (default: `slides`), else None."""
        types = self.config.get("layer_types")
        types = [SLIDING if one else FULL for one in slides] if types is None else types
        if not isinstance(types, list) or len(types) != len(slides):
            raise self.refuse("layer_types", f"expected a list of {len(slides)} kinds, got {types!r}")
        strange = next((kind for kind in types if kind not in (FULL, SLIDING)), None)
        if strange is not None:
            raise self.refuse("layer_types", f"{strange!r} is not supported, only {FULL!r} and {SLIDING!r}")
        if window is None and SLIDING in types:
            raise self.refuse("sliding_window", f"missing, but layer_types has {SLIDING!r}")
        return [window if kind == SLIDING else None for kind in types]

    def all_full(self, layers: str) -> None:
        """Check that `layer_types`, if given, lets none of the `layers` slide.

        A family without windows does not declare the field; the cache of `transformers` reads it all the same.
        """
        self.windows([False] * self.count(layers), None)


def alike(num_layers: int, rope: Rope | None, window: int | None = None) -> tuple[LayerKind, ...]:
    """Identical layers."""
    return (LayerKind(rope, window),) * num_layers
