"""What a config becomes if nothing is trained (`training.max_steps: 0`, which `training=none` sets)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunix_rt.config.choices import SPLITS


def without_training(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    """`mapping` without data that only a training would read, if there is none.

    Where the split that is asked has a source of its own, the other splits have none. A tokenizer that is trained needs
    its traces, so then all stay. `mapping` need not be valid.
    """
    sections = ("training", "generation", "tokenizer", "dataset")
    training, generation, tokenizer, dataset = (_section(mapping, name) for name in sections)
    if training.get("max_steps") != 0 or tokenizer.get("kind") != "pretrained":
        return mapping
    source = _asked_alone(_section(dataset, "source"), generation.get("split"))
    return {**mapping, "dataset": {**dataset, "source": source}} if source else mapping


def _section(mapping: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = mapping.get(name)
    return found if isinstance(found, Mapping) else {}


def _asked_alone(source: Mapping[str, Any], asked: Any) -> dict[str, Any]:
    """A source, or each one of a mixture, with the split that is asked alone, if that has a source of its own."""
    if (mixed := _section(source, "sources")) and source.get("kind") == "mixture":
        parts = {name: dict(part) if isinstance(part, Mapping) else part for name, part in mixed.items()}
        for part in parts.values():
            if isinstance(part, dict) and isinstance(part.get("source"), Mapping):
                part["source"] = _asked_alone(part["source"], asked)
        return {**source, "sources": parts}
    if source.get("kind") not in ("files", "jsonl", "huggingface"):
        return dict(source)
    if source.get(asked) is None:  # it is held out of `train`, if that is given
        return {**source, "train": None} if _section(source, "train").get("path") == "???" else dict(source)
    return {**source, **{split: None for split in SPLITS if split != asked}}
