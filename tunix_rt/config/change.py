"""A recorded experiment with some sections changed, for the stages that can be repeated by themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from boltons.iterutils import get_path

from tunix_rt.config.folders import EXPERIMENT, choices, config_folders
from tunix_rt.config.identity import STAGES, first_stage
from tunix_rt.config.load import compose, resolve
from tunix_rt.config.outdated import tracking_of_today
from tunix_rt.config.overrides import check_overrides
from tunix_rt.errors import ConfigError

RENAMED = (("dataset", "loss_weights", "earlier", "previous_turns"), ("run", "watched", "dvc_paths"))
"""Keys renamed since records of version 0.1: sections, old name, new name."""

OTHER_MODEL = "the model is that of the run; another one is asked by `training=none model=…`, without a run"
TRAINED = "the run's training is done; for another one run the experiment itself"
FIXED = {
    "model": OTHER_MODEL,
    "tokenizer": "a trained model has its own tokenizer",
    "optimizer": TRAINED,
    "schedule": TRAINED,
    "training": TRAINED,
    "run": TRAINED,
    "seed": "say which: dataset.seed, generation.seed",
}
"""Sections that stay as they are if a trained model is asked something else → why."""

INTERPOLATION = re.compile(r"(\\*)\$\{")
"""How one begins, with the backslashes before it, of which an odd number makes it text."""


def of_today(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded config of any version, under the current key names."""
    mapping = deepcopy(dict(recorded))
    for *sections, then, now in RENAMED:
        inside: Any = mapping
        for name in sections:
            inside = inside.get(name, {})
        if then in inside:
            inside[now] = inside.pop(then)
    mapping.setdefault("objective", {"kind": "sft"})
    _of_many_devices(mapping)
    if "tracking" in mapping:
        mapping["tracking"] = tracking_of_today(mapping["tracking"])
    if "answer" in mapping.get("evaluation", {}):
        mapping["evaluation"] = _with_scorers(mapping["evaluation"])
    if (earlier := get_path(mapping, ("model", "source", "config"), None)) and mapping["model"]["source"][
        "kind"
    ] == "run":
        mapping["model"]["source"]["config"] = of_today(earlier)
    return mapping


def _of_many_devices(mapping: dict[str, Any]) -> None:
    """Change a config from when there was one device: its rows at once become those of an update, and of a device."""
    training, hardware = mapping.get("training", {}), mapping.get("hardware", {})
    if "per_device_batch_size" in training:
        rows, accumulated = training.pop("per_device_batch_size"), training.pop("gradient_accumulation_steps", 1)
        training["global_batch_size"] = rows * accumulated
        hardware.setdefault("local_batch_size", rows)
    if "device" in hardware:
        device = hardware.pop("device")
        hardware |= {"devices": [device] if device else 1, "mesh": {"data": -1, "shard": 1, "tensor": 1}}


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
    earlier = list(STAGES)[: list(STAGES).index(stage)]

    def refused(key: str) -> str | None:
        if (first := first_stage(key)) not in earlier:
            return None
        return (
            f"it decides what {first} makes, and only {stage} and what follows is done again; for that run the "
            "experiment itself"
        )

    return _applied(recorded, overrides, refused)


def asks_otherwise(overrides: Sequence[str]) -> bool:
    """Whether overrides ask a trained model something else, or on another backend, which `changed` refuses."""
    keys = (text.lstrip("+~").partition("=")[0].replace("/", ".") for text in overrides)
    return any(first_stage(key) in ("prepare", "train") for key in keys)


def asked_as_it_is(recorded: Mapping[str, Any], overrides: Sequence[str], model: Mapping[str, Any]) -> dict[str, Any]:
    """`recorded` as an experiment that trains nothing and asks its model, with `overrides` applied.

    `model`: the sections (`model`, `tokenizer`) with which that model is opened. Raises ConfigError for a wrong choice,
    and if an override changes the model.
    """

    def refused(key: str) -> str | None:
        section = key.partition(".")[0]
        return FIXED.get(section) if first_stage(key) is not None else None

    alone = of_today(recorded)
    alone["generation"]["baseline"] = False
    if alone["format"].get("reader") is None:  # other data do not change how its answers are read
        alone["format"]["reader"] = "format"
    made = _applied(alone, overrides, refused)
    return {**made, **model, "training": {**made["training"], "max_steps": 0}}


def elsewhere(recorded: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`recorded` with `overrides` applied that change no result. Raises ConfigError for others, or a wrong choice."""

    def refused(key: str) -> str | None:
        what = "hardware, checkpoint, run.root, the path of a file that was moved, …"
        return None if first_stage(key) is None else f"only what changes no result may differ ({what})"

    return _applied(recorded, overrides, refused)


def _applied(
    recorded: Mapping[str, Any], overrides: Sequence[str], refused: Callable[[str], str | None]
) -> dict[str, Any]:
    """`recorded` with `overrides` applied; `refused`: why a key may not be changed. Raises ConfigError."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import DictConfig, OmegaConf

    mistakes, kept = check_overrides(overrides, config_folders())
    parsed = [OverridesParser.create().parse_override(text.lstrip("+")) for text in kept]
    for override in parsed:
        why = refused(str(override.key_or_group).replace("/", "."))
        why = "it is that of the run" if override.key_or_group == EXPERIMENT else why
        if why is not None:
            mistakes.append(f"{override.key_or_group}: not among what can be changed here: {why}")
        elif override.is_sweep_override() or override.is_delete():
            mistakes.append(f"{override.input_line}: one value at a time")
        elif "/" in str(override.key_or_group) and not choices(override.key_or_group, config_folders()):
            mistakes.append(f"{override.key_or_group}: no group of choices; a single value is KEY.KEY=VALUE")
    if mistakes:
        raise ConfigError("; ".join(mistakes))
    made = OmegaConf.create(_literal(of_today(recorded)))
    for override in parsed:
        key, value = str(override.key_or_group), override.value()
        path = key.replace("/", ".")
        if isinstance(value, str | list) and ("/" in key or isinstance(made.get(key), DictConfig)):
            value = _literal(get_path(compose([str(override.input_line)]), path.split(".")))
        OmegaConf.update(made, path, value, merge=False, force_add=True)
    return resolve(made)


def _literal(value: Any) -> Any:
    """`value`, whose interpolations are resolved already: a `${` that is left is text."""
    if isinstance(value, Mapping):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_literal(item) for item in value]
    return INTERPOLATION.sub(r"\1\1\\${", value) if isinstance(value, str) else value
