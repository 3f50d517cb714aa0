"""Experiments that begin from another one's model: that one is composed, checked and recorded with them.

Works on mappings, which need not be valid; `load` passes what composes and what checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tunix_rt.config.folders import EXPERIMENT
from tunix_rt.errors import ConfigError

SOURCES = ("model.source", "objective.teacher")
"""Sections that may name another experiment."""
INHERITED = ("backend", "hardware", "tracking", "seed", "debug")
"""Sections that an earlier experiment has from the one that begins from it."""
PLACES = ("root", "data")
"""The same of the section `run`."""

Found = list[tuple[str, str]]
"""Mistakes: dotted path; what is wrong and what to do."""
Compose = Callable[[Sequence[str]], dict[str, Any]]
Check = Callable[[Mapping[str, Any]], Found]


def with_earlier(
    mapping: Mapping[str, Any], compose: Compose, check: Check, seen: tuple[str, ...] = ()
) -> tuple[Mapping[str, Any], Found]:
    """`mapping` with the configs of the experiments that its model and its teacher come from, and the mistakes in them.

    A config that was recorded is taken as it is. `seen`: the experiments that begin from this one, to refuse a circle.
    """
    found: Found = []
    for source in SOURCES:
        head, _, tail = source.partition(".")
        section = _section(_section(mapping, head), tail)
        if section.get("kind") == "run" and _is_named(section):
            earlier, mistakes = _earlier(source, section, mapping, compose, check, seen)
            mapping, found = {**mapping, head: {**mapping[head], tail: {**section, **earlier}}}, [*found, *mistakes]
    return mapping, found


def _earlier(
    source: str,
    section: Mapping[str, Any],
    outer: Mapping[str, Any],
    compose: Compose,
    check: Check,
    seen: tuple[str, ...],
) -> tuple[dict[str, Any], Found]:
    """The `config` of one section, unless it cannot be composed, and the mistakes in it."""
    name, overrides = str(section["experiment"]), section.get("overrides", [])
    step = " ".join([name, *overrides])
    if step in seen:
        circle = " begins from ".join([*seen[seen.index(step) :], step])
        return {}, [(f"{source}.experiment", f"a circle: {circle}; one of them needs a model of its own")]
    try:
        composed = section.get("config") or _composed(name, overrides, compose)
    except ConfigError as error:
        return {}, list(_lines(source, error))
    whole, found = with_earlier(inheriting(composed, outer), compose, check, (*seen, step))
    mistakes = [(f"{source} ({name}) {path}", what) for path, what in [*found, *_own(whole, check)]]
    return {"config": _alone(whole)}, mistakes


def inheriting(config: Mapping[str, Any], outer: Mapping[str, Any]) -> dict[str, Any]:
    """The whole config of an earlier experiment: its own, and what it has from the one that begins from it."""
    places = {name: _section(outer, "run").get(name) for name in PLACES}
    run = {**_section(config, "run"), **places, "new": False}
    return {**config, **{name: outer[name] for name in INHERITED if name in outer}, "run": run}


def _alone(whole: Mapping[str, Any]) -> dict[str, Any]:
    """What is recorded of it."""
    run = {name: value for name, value in _section(whole, "run").items() if name not in (*PLACES, "new")}
    return {**{name: value for name, value in whole.items() if name not in INHERITED}, "run": run}


def _own(whole: Mapping[str, Any], check: Check) -> Found:
    """Mistakes in an earlier experiment itself; those in what it inherits are its heir's."""
    heirlooms = (*INHERITED, *(f"run.{name}" for name in PLACES))
    found = [mistake for mistake in check(whole) if not f"{mistake[0]}.".startswith(tuple(f"{h}." for h in heirlooms))]
    if _section(whole, "training").get("max_steps") == 0:
        found.append(("training.max_steps", "0: it trains no model to begin from; name its model itself"))
    return found


def _composed(name: str, overrides: Sequence[str], compose: Compose) -> dict[str, Any]:
    """Raises ConfigError, too if an override sets what is inherited."""
    fixed = (*INHERITED, *(f"run.{place}" for place in (*PLACES, "new")))
    for text in overrides:
        key = text.lstrip("+~").partition("=")[0].replace("/", ".")
        if f"{key}.".startswith(tuple(f"{name}." for name in fixed)):
            own = "; write training.seed=…" if key == "seed" else ""
            raise ConfigError(f"{text!r}: an earlier experiment has the {key} of the one it is for{own}")
    return compose([f"{EXPERIMENT}={name}", *overrides])


def _lines(source: str, error: ConfigError) -> Iterator[tuple[str, str]]:
    """The mistakes of a message, each with its place."""
    lines = str(error).splitlines()
    for line in map(str.strip, lines[1:] or lines):
        named = line.startswith(f"{EXPERIMENT}: ")
        yield f"{source}.{EXPERIMENT}" if named else f"{source}.overrides", line.removeprefix(f"{EXPERIMENT}: ")


def _section(mapping: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = mapping.get(name)
    return found if isinstance(found, Mapping) else {}


def _is_named(section: Mapping[str, Any]) -> bool:
    """Whether it has an experiment and overrides that can be composed; its type says what is wrong with others."""
    overrides = section.get("overrides", [])
    given = [section.get("experiment"), *(overrides if isinstance(overrides, list) else [None])]
    return given[0] != "???" and all(isinstance(value, str) and value for value in given)
