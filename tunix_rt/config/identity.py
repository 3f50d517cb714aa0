"""Identity is what is declared: one hash per stage, each holding the one before.

Execution sections (hardware, checkpoint, tracking, run, sweep, debug) never enter. The content of named
files enters as digests that the caller brings (`input_digests`), so that this page needs no file system.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.files import digest

STAGES: dict[str, tuple[str, ...]] = {
    "prepare": ("seed", "model.source", "tokenizer", "dataset", "format"),
    "train": ("seed", "format", "backend", "model.adapter", "optimizer", "schedule", "training"),
    "predict": ("seed", "format", "backend", "model.adapter", "generation"),
    "evaluate": ("evaluation",),
}
"""The identity sections that each stage takes, by dotted path, in the order of the chain."""

LENGTH = 12
"""Hex digits of an identity: 48 bits."""


def plain(value: Any) -> Any:
    """A config value as plain JSON data: dataclasses to dicts, tuples to lists."""
    data = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    if isinstance(data, dict):
        return {key: plain(item) for key, item in data.items()}
    return [plain(item) for item in data] if isinstance(data, list | tuple) else data


def section_of(config: ExperimentConfig, path: str) -> Any:
    """The section at a dotted path, as plain data."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return plain(value)


def identities(
    config: ExperimentConfig, input_digests: Mapping[str, str], kept: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The identity of each stage. `input_digests`: digest of each local file or model that the config names.

    `kept`: identities of stages that were done elsewhere, which the later ones are to follow.
    """
    chain: dict[str, str] = {}
    kept = kept or {}
    trained_on = {key: value for key, value in input_digests.items() if key.startswith("model.adapter")}
    parent = digest({key: value for key, value in input_digests.items() if key not in trained_on})
    for stage, sections in STAGES.items():
        declared = {name: section_of(config, name) for name in sections}
        if stage == "train" and trained_on:
            declared |= trained_on
        made = digest({"stage": stage, "parent": parent, "sections": declared})[:LENGTH]
        parent = chain[stage] = kept.get(stage, made)
    return chain
