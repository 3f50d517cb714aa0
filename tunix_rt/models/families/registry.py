"""`model_type` → the page of this folder that knows the family. A new family is a page and a line here."""

from __future__ import annotations

from typing import Protocol

from tunix_rt.errors import ModelError
from tunix_rt.files import JsonObject
from tunix_rt.models.families import llama
from tunix_rt.models.families.architecture import Architecture


class Family(Protocol):
    """What each page offers; documented in `llama`."""

    def from_config(self, config: JsonObject, where: str) -> Architecture: ...

    def to_config(
        self,
        architecture: Architecture,
        *,
        bos_id: int | None = None,
        end_ids: tuple[int, ...] = (),
        pad_id: int | None = None,
        initializer_range: float = 0.02,
    ) -> JsonObject: ...

    def tensor_shapes(self, architecture: Architecture) -> dict[str, tuple[int, ...]]: ...


FAMILIES: dict[str, Family] = {"llama": llama}


def family_of(config: JsonObject, where: str) -> Family:
    """The family that `model_type` of a config.json names. Raises ModelError listing those supported."""
    name = config.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise ModelError(f"{where}: model_type {name!r} is not supported; supported: {', '.join(sorted(FAMILIES))}")
    return FAMILIES[name]
