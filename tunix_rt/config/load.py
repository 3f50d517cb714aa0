"""From overrides, or a recorded mapping, to an ExperimentConfig: every mistake found in one pass.

Hydra composes without a schema; pydantic then checks each section strictly (ANCHORS: OmegaConf's
structured configs clash with frozen dataclasses). Nothing heavy is imported before an error is reported.
"""

from __future__ import annotations

import difflib
import inspect
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from boltons.iterutils import get_path
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from tunix_rt.config.as_it_is import without_training
from tunix_rt.config.earlier import inheriting, with_earlier
from tunix_rt.config.folders import EXPERIMENT, config_folders, search_working_directory, with_kind
from tunix_rt.config.model import RunModel
from tunix_rt.config.outdated import outdated
from tunix_rt.config.overrides import check_overrides, hydra_message, nearest
from tunix_rt.config.reader import with_reader
from tunix_rt.config.schema import RULES, SEEDED, ExperimentConfig, Mistake
from tunix_rt.config.scorers import UNUSABLE
from tunix_rt.config.section import element_of, fields_of, hints_of, keys_below, kinds_with, members
from tunix_rt.errors import ConfigError

ALIASES = {
    "lr": "learning_rate",
    "type": "kind",
    "typ": "kind",
    "dtype": "precision",
    "epochs": "num_epochs",
    "steps": "max_steps",
    "wd": "weight_decay",
    "temp": "temperature",
    "max_tokens": "max_new_tokens",
    "max_completion_length": "max_new_tokens",
    "num_generations": "samples_per_prompt",
    "num_iterations": "updates",
    "epsilon_high": "clip_high",
    "kl_coef": "kl_coefficient",
}
"""What other programs call a key → what it is here."""
WHOLE = "leave it out: rollouts are sampled at temperature 1 from all tokens, or they were not the model's own"
MOVED = {
    "evaluation.answer": "write evaluation.scorers=[{kind: number}] (or another scorer), or choose evaluation=number",
    "evaluation.relative_tolerance": "write evaluation.scorers=[{kind: number, relative_tolerance: 0.01}]",
    "tracking.kind": "write tracking=NAME, tracking=[mlflow,tensorboard], or tracking.stores.NAME={}",
    **{f"objective.rollout.{name}": WHOLE for name in ("temperature", "top_k", "top_p")},
}
"""Keys of earlier versions, and of other programs, that have no namesake here → what to do."""
MISSING = "missing: it has no default and must be given"
UNION_MEMBER = re.compile(r"(constrained-\w+|(literal|tuple)\[.*\])$")
"""What pydantic names a member of a union, of several that a value may be."""
MOST_PLACES = 3
"""A name that occurs in more sections is not suggested."""


def compose(overrides: Sequence[str]) -> dict[str, Any]:
    """Compose `conf/` with Hydra overrides, outside Hydra's own command line. Raises ConfigError."""
    return resolve(composed(overrides))


def composed(overrides: Sequence[str]) -> Any:
    """The same as a DictConfig with unresolved interpolations."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    folders = config_folders()
    search_working_directory()
    mistakes, kept = check_overrides(overrides, folders)
    around = GlobalHydra.instance().hydra  # an earlier experiment is composed while Hydra runs the later one
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folders[-1]), version_base="1.3", job_name="tunix_rt"):
            found = hydra_compose("config", overrides=kept)
    except HydraException as error:
        raise ConfigError("; ".join([*mistakes, hydra_message(error)])) from error
    finally:
        GlobalHydra.instance().hydra = around
    if mistakes:
        others = find_mistakes(resolve(found))[0]
        raise ConfigError(report([*mistakes, *(f"{path}: {what}" for path, what in others)]))
    return found


def resolve(composed: Any) -> dict[str, Any]:
    """A composed DictConfig as a plain mapping, interpolations resolved. Raises ConfigError."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True))
    except OmegaConfBaseException as error:
        raise ConfigError(f"config: {str(error).splitlines()[0]}") from error


def check(mapping: Mapping[str, Any]) -> ExperimentConfig:
    """The experiment that a resolved mapping declares. Raises ConfigError listing every mistake."""
    mistakes, values = find_mistakes(mapping)
    _refuse(mistakes)
    return ExperimentConfig(**values)


def check_section(name: str, hint: Any, value: Any) -> Any:
    """A plain value checked strictly against a section's type. Raises ConfigError listing every mistake."""
    mistakes, found = _read(name, hint, value)
    _refuse(mistakes or [*_unusable(value, name)])
    return found


def _refuse(mistakes: Sequence[Mistake]) -> None:
    if mistakes:
        raise ConfigError(report(f"{path}: {what}" for path, what in mistakes))


def report(lines: Iterable[str]) -> str:
    """Joins mistakes into one message; what several members of a union expect becomes one line."""
    merged: dict[str, list[str]] = {}
    for line in lines:
        head, separator, expected = line.partition(", expected ")
        merged.setdefault(head + separator, []).append(expected)
    found = [head + " or ".join(dict.fromkeys(expected)) for head, expected in merged.items()]
    if len(found) == 1:
        return found[0]
    return "\n  ".join([f"{len(found)} mistakes in the config:", *found])


def earlier_of(config: ExperimentConfig, source: RunModel) -> ExperimentConfig:
    """The experiment whose model an experiment begins from, with what it has from that. Raises ConfigError."""
    assert source.config is not None, "filled in by every check"
    return check(inheriting(source.config, to_jsonable_python(config)))


def find_mistakes(mapping: Mapping[str, Any]) -> tuple[list[Mistake], dict[str, Any]]:
    """Every mistake (path, what), and the valid sections."""
    whole, of_earlier = with_earlier(mapping, compose, lambda earlier: _found(earlier)[0])
    mistakes, values = _found(whole)
    return [*mistakes, *of_earlier], values


def _found(mapping: Mapping[str, Any]) -> tuple[list[Mistake], dict[str, Any]]:
    """The same of this experiment alone."""
    old, mapping = outdated(mapping)
    mapping, hints = without_training(with_reader(_seeded(mapping))), hints_of(ExperimentConfig)
    values: dict[str, Any] = {}
    unusable = dict(_unusable(mapping, ""))
    mistakes: list[Mistake] = [*old, *sorted(unusable.items())]
    open_ = tuple(f"{path}." for path in unusable)
    mistakes += [(str(key), f"unknown key{meant(str(key))}") for key in mapping if key not in hints]
    for name, hint in hints.items():
        if name not in mapping:
            mistakes.append((name, "missing"))
            continue
        found, value = _read(name, hint, mapping[name])
        mistakes += [mistake for mistake in found if not f"{mistake[0]}.".startswith(open_)]
        if not found:
            values[name] = value
    for rule in RULES:
        wanted = inspect.signature(rule).parameters
        if wanted.keys() <= values.keys():
            mistakes.extend(rule(**{name: values[name] for name in wanted}))
    return mistakes, values


def meant(path: str, beside: Iterable[str] = (*hints_of(ExperimentConfig), EXPERIMENT)) -> str:
    """`; did you mean …?` for an unknown key at a dotted path; empty if nothing is similar.

    `beside`: the keys that its section knows. The same name in another section is preferred to a similar name.
    """
    if path in MOVED:
        return f"; {MOVED[path]}"
    near, known = path.rpartition(".")[2], set(beside)
    name = ALIASES.get(near, near)
    if name in known:
        return f"; did you mean {name!r}?"
    places: dict[str, list[str]] = {}
    for place in dict.fromkeys(path for path, _ in keys_below(ExperimentConfig)):
        places.setdefault(place.rpartition(".")[2], []).append(place)
    few = {key: found for key, found in places.items() if len(found) <= MOST_PLACES}
    if name not in few and (close := nearest(near, known)):
        return close
    similar = next(iter(difflib.get_close_matches(near, places, n=1, cutoff=0.8)), "")
    found = few.get(name) or few.get(similar, [])
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""


def _seeded(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """`mapping` with `seed` filled in for each section that has none. A wrong `seed` stays a single mistake."""
    given = mapping.get("seed")
    seed = given if isinstance(given, int) and given >= 0 else 0
    own = {key: mapping[key] for key in SEEDED if isinstance(mapping.get(key), Mapping)}
    return {**mapping, **{key: {**value, "seed": seed} for key, value in own.items() if value.get("seed") is None}}


def _unusable(value: Any, path: str) -> Iterator[Mistake]:
    """Values that are still `???`, and non-finite numbers, whatever type a value should have."""
    if value == "???":
        yield path, MISSING
    elif isinstance(value, float) and not math.isfinite(value):
        yield path, f"got {value}, expected a finite number"
    elif isinstance(value, Mapping | list):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _unusable(item, f"{path}.{key}" if path else str(key))


def _read(name: str, hint: Any, value: Any) -> tuple[list[Mistake], Any]:
    """The mistakes in a section, and its value if there are none."""
    try:
        return [], TypeAdapter(hint).validate_json(json.dumps(_whole_numbers(hint, value)), strict=True)
    except ValidationError as error:
        return _not_chosen([_mistake(name, hint, value, detail) for detail in error.errors(include_url=False)]), None


def _not_chosen(found: list[Mistake]) -> list[Mistake]:
    """`found` with one mistake, instead of one per field, for a section without `kind`: fields of nothing are set."""
    sections = [path.removesuffix(".kind") for path, what in found if path.endswith(".kind") and what == MISSING]
    others = [mistake for mistake in found if not mistake[0].startswith(tuple(f"{path}." for path in sections))]
    what = "nothing is chosen that has such keys"
    return [*((path, f"{what}: {path.replace('.', '/')}=… first") for path in sections), *others]


def _whole_numbers(hint: Any, value: Any) -> Any:
    """`value` with 1e3, which YAML takes for a float, as 1000 if only an integer is expected."""
    if isinstance(value, dict):
        fields = fields_of(hint, value)
        return {key: _whole_numbers(fields.get(key), item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(element_of(hint), item) for item in value]
    expected = set(members(hint)) if isinstance(value, float) else set()
    return int(value) if int in expected and float not in expected and value.is_integer() else value


def _of_other_kinds(path: str, kinds: Sequence[str]) -> str:
    """That a key belongs to other kinds of its section, and the files that choose them; empty if to none."""
    named = " or ".join(f"{path.rpartition('.')[0]}.kind={kind}" for kind in kinds)
    group = path.partition(".")[0]
    most = 1 if len(kinds) > 1 else MOST_PLACES
    files = [f"{group}={name}" for kind in kinds for name in with_kind(group, kind)[:most]]
    chosen = f" (chosen by {', '.join(files)})" if files else ""
    return f"not a key of this kind, but of {named}{chosen}" if kinds else ""


def _mistake(name: str, hint: Any, inside: Any, detail: Any) -> Mistake:
    """One of pydantic's findings as (dotted path, what is wrong and what is allowed)."""
    path, fields, section = [name], {}, hint
    location = [item for item in detail["loc"] if not str(item).startswith("function-")]
    for place, item in enumerate(location):
        tag = isinstance(inside, dict) and inside.get("kind") == item and item not in inside
        union_member = isinstance(inside, int | float | str | bool | type(None)) and place == len(location) - 1
        if tag or (union_member and not isinstance(item, int)) or UNION_MEMBER.match(str(item)):
            continue
        path.append(str(item))
        fields, section = fields_of(hint, inside), hint
        hint = fields.get(item, Any) if fields else element_of(hint) or Any
        inside = get_path(inside, (item,), None)
    where = ".".join(path)
    kind, given = detail["type"], detail.get("input")
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return where, _of_other_kinds(where, kinds_with(section, path[-1])) or f"unknown key{meant(where, fields)}"
    if kind in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return where, MISSING
    if kind == "value_error":
        return where, str(detail["ctx"]["error"])
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tags = detail["ctx"].get("expected_tags", "")
        got = given.get("kind") if isinstance(given, dict) else given
        why = f"; {UNUSABLE[got]}" if where.startswith("evaluation.scorers") and got in UNUSABLE else ""
        return f"{where}.kind", f"got {got!r}, allowed: {tags}{why}"
    message = str(detail["msg"]).removeprefix("Input should be ").replace("a valid boolean", "true or false")
    if kind.startswith("byte_size"):
        message = "a size such as 5GB or 500MB"
    if kind == "dataclass_type" and (keys := sorted(fields_of(hint, None))):
        message = f"a section of {', '.join(f'{where}.{key}' for key in keys)}"
        if "path" in keys and isinstance(given, str):
            message = f"a section; did you mean {where}.path={given}?"
    return where, f"got {json.dumps(given, ensure_ascii=False)}, expected {message}"
