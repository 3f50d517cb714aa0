"""From overrides, or a recorded mapping, to an ExperimentConfig: every mistake found in one pass.

Hydra composes without a schema; pydantic then checks each section strictly (ANCHORS: OmegaConf's
structured configs clash with frozen dataclasses). Nothing heavy is imported on the way to an error.
"""

from __future__ import annotations

import difflib
import inspect
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from pydantic import TypeAdapter, ValidationError

from tunix_rt.config.schema import RULES, SEEDED, ExperimentConfig, Mistake
from tunix_rt.config.section import fields_of
from tunix_rt.errors import ConfigError

T = TypeVar("T")
PLUGGED = ("hydra/launcher", "hydra/sweeper")
GRID_SWEEPER = "hydra_plugins.tunix_rt_sweeps.grid_sweeper.GridSweeper"
"""Every combination of `-m KEY=A,B OTHER=C,D`, and of `hydra.sweeper.params`."""


def config_folders() -> list[Path]:
    """Folders searched for configs: `conf/` of the working directory first, then the installed one."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf" if (package / "conf").is_dir() else package.parent / "conf"
    own = (Path.cwd() / "conf").resolve()
    return [own, installed] if own.is_dir() and own != installed else [installed]


@cache
def search_working_directory() -> None:
    """Make Hydra look into `conf/` of the working directory before the installed configs, once a process."""
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class WorkingDirectory(SearchPathPlugin):
        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            for folder in config_folders()[:-1]:
                search_path.prepend(provider="working-directory", path=f"file://{folder}", anchor="main")

    Plugins.instance().register(WorkingDirectory)
    _prefer_ours()


def _prefer_ours() -> None:
    """Launchers and sweepers are what `conf/hydra/` says; Hydra would merge them with stored ones of the same name.

    `basic`, which is chosen where nothing is, has no file there: DVC's composition would warn of one each time.
    """
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for group in PLUGGED:
        for name in _files(group, config_folders()):
            store.repo["hydra"][group.removeprefix("hydra/")].pop(f"{name}.yaml", None)
    grid = {"_target_": GRID_SWEEPER, "max_batch_size": None, "params": None}
    store.store(group="hydra/sweeper", name="basic", node=grid, provider="tunix_rt")


def choices(group: str, folders: Iterable[Path]) -> list[str]:
    """Names that can be chosen for a group, sorted."""
    return sorted(_files(group, folders) | ({"basic"} if group in PLUGGED else set()))


def _files(group: str, folders: Iterable[Path]) -> set[str]:
    found = {file.stem for folder in folders for file in (folder / group).glob("*.yaml")}
    return {name for name in found if not name.startswith("_")}


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing where no known word is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def compose(overrides: Sequence[str]) -> dict[str, Any]:
    """Compose `conf/` with Hydra overrides, outside Hydra's own command line. Raises ConfigError."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException

    folders = config_folders()
    search_working_directory()
    mistakes, kept = check_overrides(overrides, folders)
    try:
        with initialize_config_dir(str(folders[-1]), version_base="1.3", job_name="tunix_rt"):
            composed = hydra_compose("config", overrides=kept)
    except HydraException as error:
        raise ConfigError("; ".join([*mistakes, str(error)])) from error
    mapping = resolve(composed)
    if mistakes:
        raise ConfigError(report([*mistakes, *(f"{path}: {what}" for path, what in find_mistakes(mapping)[0])]))
    return mapping


def resolve(composed: Any) -> dict[str, Any]:
    """A composed DictConfig as a plain mapping, interpolations resolved. Raises ConfigError."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True))
    except OmegaConfBaseException as error:
        raise ConfigError(f"config: {str(error).splitlines()[0]}") from error


def check_overrides(overrides: Sequence[str], folders: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Look at command-line overrides before Hydra does.

    Returns the mistakes in choices of groups, and the other overrides with values forced in (`++`), so that
    a misspelt key reaches our check, which names all of them, instead of Hydra's, which stops at the first.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    groups = {path.relative_to(folder).as_posix() for folder in folders for path in folder.rglob("*") if path.is_dir()}
    mistakes: list[str] = []
    kept: list[str] = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            mistakes.append(f"{text!r} is not an override ({str(error).splitlines()[0]}); the form is key=value")
            continue
        key = str(override.key_or_group)
        if not key:
            mistakes.append(f"{text!r} is not an override; the form is key=value")
            continue
        if key in groups and not override.is_delete():
            wrong = [_wrong_choice(key, value, folders) for value in _chosen(override)]
            mistakes += [line for line in wrong if line]
            if not any(wrong):
                kept.append(text)
        elif override.is_delete() or text.startswith("+") or key.split(".")[0].split("/")[0] == "hydra":
            kept.append(text)
        else:
            kept.append(f"++{text}")
    return mistakes, kept


def _chosen(override: Any) -> list[str]:
    if override.is_sweep_override():
        return list(override.sweep_string_iterator())
    value = override.value()
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _wrong_choice(group: str, name: str, folders: Sequence[Path]) -> str | None:
    known = choices(group, folders)
    if name in known or name.removesuffix(".yaml") in known or name == "None":
        return None
    return f"{group}: no {name!r}{nearest(name, known)} (there are: {', '.join(known)})"


def check(mapping: Mapping[str, Any]) -> ExperimentConfig:
    """The experiment that a resolved mapping declares. Raises ConfigError listing every mistake."""
    mistakes, values = find_mistakes(mapping)
    if mistakes:
        raise ConfigError(report(f"{path}: {what}" for path, what in mistakes))
    return ExperimentConfig(**values)


def report(lines: Iterable[str]) -> str:
    """One message from many mistakes; what several members of a union expect becomes one line."""
    merged: dict[str, list[str]] = {}
    for line in lines:
        head, separator, expected = line.partition(", expected ")
        merged.setdefault(head + separator, []).append(expected)
    found = [head + " or ".join(dict.fromkeys(expected)) for head, expected in merged.items()]
    if len(found) == 1:
        return found[0]
    return "\n  ".join([f"{len(found)} mistakes in the config:", *found])


def find_mistakes(mapping: Mapping[str, Any]) -> tuple[list[Mistake], dict[str, Any]]:
    """Every mistake (path, what), and the sections that are sound."""
    mapping = _seeded(mapping)
    hints = get_type_hints(ExperimentConfig, include_extras=True)
    mistakes: list[Mistake] = []
    values: dict[str, Any] = {}
    unusable = dict(_unusable(mapping, ""))
    mistakes += sorted(unusable.items())
    mistakes += [(str(key), f"unknown key{nearest(str(key), hints)}") for key in mapping if key not in hints]
    for name, hint in hints.items():
        if name not in mapping:
            mistakes.append((name, "missing"))
            continue
        try:
            values[name] = section_from(hint, mapping[name])
        except ValidationError as error:
            details = cast(list[Mapping[str, Any]], error.errors(include_url=False))
            found = [_mistake(name, hint, mapping[name], detail) for detail in details]
            mistakes += [mistake for mistake in found if mistake[0] not in unusable]
    for rule in RULES:
        wanted = inspect.signature(rule).parameters
        if wanted.keys() <= values.keys():
            mistakes.extend(rule(**{name: values[name] for name in wanted}))
    return mistakes, values


def _seeded(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """`mapping` with a seed in each section that has none of its own. A wrong `seed` stays a single mistake."""
    given = mapping.get("seed")
    seed = given if isinstance(given, int) and given >= 0 else 0
    own = {key: mapping[key] for key in SEEDED if isinstance(mapping.get(key), Mapping)}
    return {**mapping, **{key: {**value, "seed": seed} for key, value in own.items() if value.get("seed") is None}}


def _unusable(value: Any, path: str) -> Iterator[Mistake]:
    """What is still `???`, and numbers that are none, whatever type a value should have."""
    if value == "???":
        yield path, "missing: it has no default and must be given"
    elif isinstance(value, float) and not math.isfinite(value):
        yield path, f"got {value}, expected a finite number"
    elif isinstance(value, Mapping | list):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _unusable(item, f"{path}.{key}" if path else str(key))


def section_from(hint: Any, value: Any) -> Any:
    """A plain value checked strictly against a section's type. Raises pydantic's ValidationError."""
    return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)


def _mistake(name: str, hint: Any, value: Any, detail: Mapping[str, Any]) -> Mistake:
    """One of pydantic's findings as (dotted path, what is wrong and what is allowed)."""
    path, inside, known = [name], value, hint
    location = [item for item in detail["loc"] if not str(item).startswith("function-")]
    for place, item in enumerate(location):
        tag = isinstance(inside, dict) and inside.get("kind") == item and item not in inside
        union_member = isinstance(inside, int | float | str | bool | type(None)) and place == len(location) - 1
        if tag or (union_member and not isinstance(item, int)):
            continue
        path.append(str(item))
        known = _hint_of(known, inside, item)
        inside = inside.get(item) if isinstance(inside, dict) else _item(inside, item)
    where = ".".join(path)
    kind, given = detail["type"], detail.get("input")
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return where, f"unknown key{nearest(path[-1], _keys_beside(name, hint, value, path[1:-1]))}"
    if kind in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return where, "missing: it has no default and must be given"
    if kind == "value_error":
        return where, str(detail["ctx"]["error"])
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tags = detail["ctx"].get("expected_tags", "")
        got = given.get("kind") if isinstance(given, dict) else given
        return f"{where}.kind", f"got {got!r}, allowed: {tags}"
    message = str(detail["msg"]).removeprefix("Input should be ")
    return where, f"got {json.dumps(given, ensure_ascii=False)}, expected {message}"


def _item(inside: Any, item: Any) -> Any:
    return inside[item] if isinstance(inside, list) and isinstance(item, int) and item < len(inside) else None


def _hint_of(hint: Any, inside: Any, item: Any) -> Any:
    """The hint of key `item` of a section; Any where there is none."""
    return fields_of(hint, inside).get(item, Any) if isinstance(item, str) else Any


def _keys_beside(name: str, hint: Any, value: Any, path: Sequence[str]) -> set[str]:
    """Keys that the section at `path` below section `name` knows."""
    for item in path:
        hint = _hint_of(hint, value, item)
        value = value.get(item) if isinstance(value, dict) else None
    return set(fields_of(hint, value))
