"""A recorded experiment with some sections changed, for the stages that can be repeated by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from boltons.iterutils import get_path

from tunix_rt.config.folders import config_folders
from tunix_rt.config.identity import STAGES, first_stage
from tunix_rt.config.load import compose, resolve
from tunix_rt.config.overrides import check_overrides
from tunix_rt.errors import ConfigError

RENAMED = (("dataset", "loss_weights", "earlier", "previous_turns"), ("run", "watched", "dvc_paths"))
"""Keys renamed since records of version 0.1: sections, old name, new name."""


def of_today(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded config of any version, under the current key names."""
    mapping = deepcopy(dict(recorded))
    for *sections, then, now in RENAMED:
        inside: Any = mapping
        for name in sections:
            inside = inside.get(name, {})
        if then in inside:
            inside[now] = inside.pop(then)
    if "answer" in mapping.get("evaluation", {}):
        mapping["evaluation"] = _with_scorers(mapping["evaluation"])
    return mapping


def _with_scorers(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded section `evaluation` from before there were scorers."""
    kept = {key: evaluation[key] for key in ("steps", "slices", "pass_at") if key in evaluation}
    scorer: dict[str, Any] = {"kind": "exact"}
    if evaluation["answer"] == "numeric":
        scorer = {"kind": "number", "relative_tolerance": evaluation.get("relative_tolerance", 0.0)}
    return {"scorers": [scorer], "extract": [evaluation.get("extract", "format")]} | kept


def changed(recorded: Mapping[str, Any], overrides: Sequence[str], stage: str) -> dict[str, Any]:
    """`recorded` with `overrides` applied, in order; `stage`: the first stage that is run again.

    `group=choice` replaces the whole recorded section with the group's file, `key.path=value` changes one value.
    Raises ConfigError for a wrong choice, and if an override changes the result of an earlier stage.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import DictConfig, OmegaConf

    mistakes, kept = check_overrides(overrides, config_folders())
    parsed = [OverridesParser.create().parse_override(text.lstrip("+")) for text in kept]
    earlier = list(STAGES)[: list(STAGES).index(stage)]
    for override in parsed:
        first = first_stage(str(override.key_or_group).replace("/", "."))
        if first in earlier:
            mistakes.append(
                f"{override.key_or_group}: not among what can be changed here: it decides what {first} makes, and only "
                f"{stage} and what follows is done again; for that run the experiment itself"
            )
        elif override.is_sweep_override() or override.is_delete():
            mistakes.append(f"{override.input_line}: one value at a time")
    if mistakes:
        raise ConfigError("; ".join(mistakes))
    made = OmegaConf.create(of_today(recorded))
    for override in parsed:
        key, value = str(override.key_or_group), override.value()
        path = key.replace("/", ".")
        if isinstance(value, str) and ("/" in key or isinstance(made.get(key), DictConfig)):
            value = get_path(compose([f"{key}={value}"]), path.split("."))
        OmegaConf.update(made, path, value, merge=False, force_add=True)
    return resolve(made)
