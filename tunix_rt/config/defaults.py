"""Defaults as `conf/` gives them: those of the config that no override changes, else those of a group's files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunix_rt.config.folders import config_folders, groups, search_working_directory

MISSING = "???"
"""A value that a file leaves to the person."""
GIVEN = "must be given"
FEW = 2
"""More different values than this among a group's files are not listed."""
WORD = re.compile(r"[A-Za-z_][\w./:-]*")


def defaults(keys: Sequence[tuple[str, tuple[str, ...]]]) -> list[str]:
    """The default of each key, where its section is of one of the kinds given with it (none: of any), as YAML.

    One that only other files of its group have is followed by their names; empty if no file has the key.
    Raises what Hydra raises for a broken file.
    """
    config = _plain(["config"])["config"]
    wanted = {group for key, kinds in keys if _value(config, key, kinds) is None for group in _groups_of(key)}
    files = _plain([f"{group}/{name}" for group, names in groups().items() if group in wanted for name in names])
    return [_default(key, kinds, config, files) for key, kinds in keys]


def _groups_of(key: str) -> Iterator[str]:
    """The groups whose files may hold a key."""
    return (group for group in groups() if key.startswith(f"{group.replace('/', '.')}."))


def _plain(names: Sequence[str]) -> dict[str, Any]:
    """Name of a file of `conf/` → what it composes, interpolations as they are."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    search_working_directory()
    with initialize_config_dir(str(config_folders()[-1]), version_base="1.3", job_name="tunix_rt"):
        return {name: OmegaConf.to_container(compose(name)) for name in names}


def _default(key: str, kinds: tuple[str, ...], config: Mapping[str, Any], files: Mapping[str, Any]) -> str:
    if value := _value(config, key, kinds):
        return _text(value[0])
    found: dict[str, list[str]] = {}
    for name, inside in files.items():
        if value := _value(inside, key, kinds):
            found.setdefault(_text(value[0]), []).append("=".join(name.rsplit("/", 1)))
    if GIVEN in found or not found:
        return GIVEN if found else ""
    if len(found) > FEW:
        return f"by file of {next(iter(found.values()))[0].partition('=')[0]}"
    return ", ".join(f"{text} ({' '.join(names[:FEW])}{' …' * (len(names) > FEW)})" for text, names in found.items())


def _value(config: Mapping[str, Any], key: str, kinds: tuple[str, ...]) -> tuple[Any] | None:
    """The value at a dotted path, in a tuple; None if there is none, or its section is of another kind."""
    inside: Any = config
    kind = None
    for name in key.split("."):
        if not isinstance(inside, Mapping) or name not in inside:
            return None
        kind = inside.get("kind", kind)
        inside = inside[name]
    return (inside,) if not kinds or kind in kinds else None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return GIVEN if value == MISSING else value if WORD.fullmatch(value) else json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)
