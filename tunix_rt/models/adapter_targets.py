"""Which matrices an adapter_config.json names, and the rank and alpha of each, as `peft` (0.21) reads it.

Source: tuners_utils.check_target_module_exists and utils.other.get_pattern_key.
"""

from __future__ import annotations

import re

from tunix_rt.files import JsonObject
from tunix_rt.models.adapter import fits, module_name
from tunix_rt.models.families.fields import Fields
from tunix_rt.models.families.names import Tensor

READ = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern")
"""The fields of adapter_config.json that are read here."""


def targets(fields: Fields, among: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """The matrices that get an adapter; None if the config does not say. Raises ModelError naming a wrong field."""
    if fields.config.get("target_modules") is None:
        return None
    if fields.config["target_modules"] == "all-linear":
        chosen = tuple(module for module in among if module.is_layer_matrix)
    else:
        chosen = tuple(module for module in among if _matches(fields, "target_modules", module))
    if not isinstance(fields.config["target_modules"], str):
        chosen = tuple(module for module in chosen if _in_layers(fields, module))
    if not fields.config.get("exclude_modules"):
        return chosen
    return tuple(module for module in chosen if not _matches(fields, "exclude_modules", module))


def _matches(fields: Fields, field: str, module: Tensor) -> bool:
    """A text is a regular expression of whole names; a list holds names or their ends."""
    value = fields.config[field]
    if isinstance(value, str):
        return matched(fields, field, value, module)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise fields.refuse(field, f"{value!r}, expected a regular expression or a list of names")
    return any(fits(module, item) for item in value)


def matched(fields: Fields, field: str, pattern: str, module: Tensor) -> bool:
    """Whether a regular expression found in `field` matches the matrix's whole name. Raises ModelError: it is none."""
    try:
        return re.fullmatch(pattern, module_name(module)) is not None
    except re.error as error:
        raise fields.refuse(field, f"{pattern!r} is no regular expression ({error})") from None


def _in_layers(fields: Fields, module: Tensor) -> bool:
    """Whether the matrix is in one of `layers_to_transform`; the number is that after a name of `layers_pattern`."""
    wanted = fields.config.get("layers_to_transform")
    if wanted is None or wanted == []:
        return True
    wanted = wanted if isinstance(wanted, list) else [wanted]
    if not all(isinstance(item, int) for item in wanted):
        raise fields.refuse("layers_to_transform", f"{wanted!r}, expected a number or a list of numbers")
    names = fields.config.get("layers_pattern") or []
    for name in [names] if isinstance(names, str) else names:
        if matched(fields, "layers_pattern", rf"(.*?\.)?{name}\.\d+\..*", module):
            return module.layer in wanted
    return not names and module.layer in wanted


def exceptions(fields: Fields, modules: tuple[Tensor, ...]) -> tuple[tuple[str, int, float], ...]:
    """Name, rank and alpha of the matrices for which `rank_pattern` or `alpha_pattern` has an entry."""
    usual = fields.config["r"], fields.config["lora_alpha"]
    found = []
    for module in modules:
        rank = _first(fields, "rank_pattern", module, usual[0])
        alpha = _first(fields, "alpha_pattern", module, usual[1])
        if (rank, alpha) != usual:
            found.append((module_name(module), int(rank), float(alpha)))
    return tuple(found)


def _pattern(fields: Fields, name: str) -> dict[str, float]:
    value: JsonObject = fields.config.get(name) or {}
    if not isinstance(value, dict):
        raise fields.refuse(name, f"{value!r}, expected an object of pattern → number")
    inner = Fields(value, f"{fields.where}: {name}")
    return {key: inner.count(key) if name == "rank_pattern" else inner.number(key) for key in value}


def _first(fields: Fields, name: str, module: Tensor, usual: float) -> float:
    """The value of the first entry of a pattern that matches the end of the matrix's name."""
    pattern = _pattern(fields, name)
    ends = (value for key, value in pattern.items() if matched(fields, name, rf"(.*\.)?({key})", module))
    return next(ends, usual)
