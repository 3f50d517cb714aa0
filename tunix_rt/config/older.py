"""Configs that earlier versions recorded, in today's words, so that their runs stay readable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMED = {
    ("run", "watched"): "dvc_paths",
    ("loss_weights", "earlier"): "previous_turns",
}
"""(section, key) of then → key of today."""


def upgraded(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded config as plain data, with its keys as they are called today."""
    return {key: _section(key, value) for key, value in recorded.items()}


def _section(name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {RENAMED.get((name, key), key): _section(key, item) for key, item in value.items()}
