"""Every key that a config may hold: what may be given for it, its default, and what it does.

All of it is derived: keys and types from the dataclasses, sentences from their docstrings, defaults from `conf/`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from typing import Any, Literal, get_args, get_origin

from tunix_rt.config.allowed import allowed, listed, unit
from tunix_rt.config.defaults import GIVEN, defaults
from tunix_rt.config.load import ALIASES, meant
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.config.section import element_of, hints_of, is_execution, members
from tunix_rt.config.sentences import field_sentences, section_sentence
from tunix_rt.errors import InputError


@dataclass(frozen=True, slots=True)
class Option:
    """One key, or what it means for some kinds of its section."""

    key: str
    """Dotted path."""
    kinds: tuple[str, ...]
    """The kinds of its section that have it so; empty: all of them."""
    allowed: str
    """Type and allowed values in words."""
    unit: str
    """What its number counts; empty if nothing."""
    identity: bool
    """Whether another value is another run."""
    sentence: str
    default: str
    """As YAML, followed by its file if another than the default's must be chosen; or why there is none."""


@dataclass(frozen=True, slots=True)
class Section:
    """What holds keys."""

    key: str
    """Dotted path; empty for the whole config."""
    sentence: str
    optional: bool
    """Whether `null` may be given for it."""


def options(asked: str = "") -> list[Option]:
    """The keys that `asked` means (`chosen`), all if it is empty, in the order of declaration.

    It composes the files of `conf/`: two seconds for all keys. Raises InputError if no key is meant.
    """
    by_key: dict[str, list[Option]] = {}
    for option in _declared(ExperimentConfig, "", ()):
        by_key.setdefault(option.key, []).append(option)
    found = [option for same in by_key.values() for option in _merged(same, _kinds(by_key, same[0].key))]
    found = chosen(found, asked) if asked else found
    composed = defaults([(option.key, option.kinds) for option in found])
    optional = tuple(f"{section.key}." for section in sections() if section.optional)
    return [
        replace(option, default=_default(text or option.default, option.key.startswith(optional)))
        for option, text in zip(found, composed, strict=True)
    ]


def _default(text: str, optional: bool) -> str:
    """The default; where there is none, whether its section must be given at all."""
    return f"{GIVEN} if its section is" if optional and text == GIVEN else text


def sections(hint: Any = ExperimentConfig, key: str = "", field: str = "") -> Iterator[Section]:
    """Every section from a type down; `field`: what the field that holds it says of it."""
    classes = _classes(hint)
    if classes:
        said = section_sentence(classes[0]) if len(classes) == 1 else ""
        yield Section(key, " ".join(filter(None, (said, field))), type(None) in members(hint))
    below = {name: (cls, inside) for cls in reversed(classes) for name, inside in hints_of(cls).items()}
    for name, (cls, inside) in below.items():
        yield from sections(inside, f"{key}.{name}".lstrip("."), field_sentences(cls).get(name, ""))


def chosen(found: Sequence[Option], asked: str) -> list[Option]:
    """The options below a section, else those with `asked` in their key, else those whose description has it.

    Raises InputError with the nearest key if there is none.
    """
    word = ALIASES.get(asked, asked).rstrip(".=").lower()
    below = [option for option in found if _leads_to(word, option.key)]
    named = below or [option for option in found if word in option.key.lower()]
    fitting = named or [option for option in found if word in f"{option.sentence} {option.allowed}".lower()]
    if not fitting:
        raise InputError(f"no key has {asked!r} in its name or its description{meant(asked)}")
    return fitting


def _leads_to(path: str, key: str) -> bool:
    """Whether a key lies below a path, or is it and has a section; any name stands for `NAME`."""
    asked, parts = path.split("."), key.split(".")
    same = all(part == "NAME" or part == word for word, part in zip(asked, parts, strict=False))
    return same and (len(asked) < len(parts) or ("." in path and len(asked) == len(parts)))


def _classes(hint: Any) -> list[Any]:
    return [member for member in members(hint) if is_dataclass(member)]


def _declared(hint: Any, path: str, kinds: tuple[str, ...], deep: bool = True) -> Iterator[Option]:
    """The keys of each class that a section may be; `kinds`: those of the section that it is in.

    Of a mapping to sections, the keys of one of them, `NAME`; not `deep`, so that a source is not explained twice.
    """
    classes = _classes(hint)
    for cls in classes:
        hints, sentences = hints_of(cls), field_sentences(cls)
        own = get_args(hints["kind"]) if "kind" in hints and len(classes) > 1 else kinds
        for name, field in hints.items():
            below, others = _classes(field), [member for member in members(field) if member is not type(None)]
            if deep:
                yield from _declared(field, f"{path}{name}.", own)
            if len(below) < len(others) or not deep:
                said = sentences.get(name, "")
                if name == "kind" and get_origin(field) is Literal:
                    said = f"{allowed(field)}: {section_sentence(cls)} {said}".strip()
                words = allowed(field), unit(field), not is_execution(field), said, _own_default(cls, name)
                yield Option(f"{path}{name}", own, *words)
            for item in _classes(element_of(field)) if element_of(field) else ():
                yield from _declared(item, f"{path}{name}.N.", get_args(hints_of(item).get("kind")))
            for mapping in (member for member in others if get_origin(member) is dict):
                yield from _declared(get_args(mapping)[1], f"{path}{name}.NAME.", own, deep=False)


def _own_default(cls: Any, name: str) -> str:
    """The default that the class itself has, for sections that no file of `conf/` has; else what says there is none."""
    declared = next(field for field in fields(cls) if field.name == name)
    if declared.default_factory is not MISSING:
        return json.dumps(declared.default_factory())
    return GIVEN if declared.default is MISSING else json.dumps(declared.default)


def _kinds(by_key: Mapping[str, Sequence[Option]], key: str) -> set[str]:
    """All kinds of the nearest section of a key that has kinds."""
    parts = key.split(".")
    places = [".".join([*parts[:n], "kind"]) for n in range(len(parts) - 1, 0, -1)]
    return next(
        ({kind for option in by_key[place] for kind in option.kinds} for place in places if place in by_key), set()
    )


def _merged(same: Sequence[Option], kinds: set[str]) -> Iterator[Option]:
    """One option for those of a key that differ in the kind of their section only.

    A class that says nothing of a key means what the first one says of it.
    """
    said = next((option.sentence for option in same if option.sentence), "")
    if len(same) > 1 and same[0].key.endswith(".kind"):
        every = listed(option.allowed for option in same)
        yield replace(same[0], kinds=(), allowed=every, sentence=" ".join(option.sentence for option in same))
        return
    alike: dict[Option, list[str]] = {}
    for option in same:
        one = replace(option, sentence=option.sentence or said, kinds=())
        alike.setdefault(one, []).extend(option.kinds)
    for option, having in alike.items():
        yield replace(option, kinds=() if set(having) == kinds else tuple(having))
