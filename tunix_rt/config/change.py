"""A recorded experiment with some sections changed, for the stages that can be done again by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunix_rt.config.folders import config_folders
from tunix_rt.config.load import compose, resolve
from tunix_rt.config.overrides import check_overrides
from tunix_rt.config.suggest import nearest
from tunix_rt.errors import ConfigError


def changed(recorded: Mapping[str, Any], overrides: Sequence[str], sections: Sequence[str]) -> dict[str, Any]:
    """`recorded` with `overrides` applied, in order.

    `group=choice` puts the group's file in the place of the whole recorded section, `key.path=value` changes one
    value. Raises ConfigError for a wrong choice, and where an override reaches beyond `sections`.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    mistakes, kept = check_overrides(overrides, config_folders())
    parsed = [OverridesParser.create().parse_override(text.lstrip("+")) for text in kept]
    for override in parsed:
        section = str(override.key_or_group).split(".")[0]
        if section not in sections:
            mistakes.append(
                f"{override.key_or_group}: not among what can be changed here ({', '.join(sections)})"
                f"{nearest(section, sections)}; for another {section} run the experiment itself"
            )
        elif override.is_sweep_override() or override.is_delete():
            mistakes.append(f"{override.input_line}: one value at a time")
    if mistakes:
        raise ConfigError("; ".join(mistakes))
    made = OmegaConf.create({str(key): value for key, value in recorded.items()})
    for override in parsed:
        key, value = str(override.key_or_group), override.value()
        if key in sections and isinstance(value, str):
            value = compose([f"{key}={value}"])[key]
        OmegaConf.update(made, key, value, merge=False, force_add=True)
    return resolve(made)
