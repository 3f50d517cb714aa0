"""Suggestions for an unknown key or name that a user typed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import is_dataclass
from functools import cache
from typing import Any

from tunix_rt.config.section import fields_of, hints_of, members

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
}
"""What other programs call a key → what it is here."""
MOST_PLACES = 3
"""A name that occurs in more sections is not suggested."""


def meant(path: str, beside: Iterable[str], root: Any) -> str:
    """`; did you mean …?` for an unknown key at a dotted path; empty if nothing is similar.

    `beside`: the keys that its section knows; `root`: the type of the whole config. The same name in another section
    takes precedence over a similar name.
    """
    near, known = path.rpartition(".")[2], set(beside)
    name = ALIASES.get(near, near)
    if name in known:
        return f"; did you mean {name!r}?"
    places = _places(name, root)
    if not places and not (close := nearest(near, known)):
        places = _places(next(iter(difflib.get_close_matches(near, _all_names(root), n=1, cutoff=0.8)), near), root)
    elif not places:
        return close
    return f"; did you mean {' or '.join(map(repr, places))}?" if places else ""


def _places(name: str, root: Any) -> list[str]:
    """Dotted paths of the keys of this name, if there are only a few."""
    found = [path for path in paths(root) if path.rpartition(".")[2] == name]
    return found if len(found) <= MOST_PLACES else []


def _all_names(root: Any) -> set[str]:
    return {path.rpartition(".")[2] for path in paths(root)}


@cache
def paths(root: Any) -> tuple[str, ...]:
    """The dotted path of every key below a section's type."""
    found: dict[str, None] = {}
    for member in members(root):
        for name, hint in hints_of(member).items() if is_dataclass(member) else ():
            found |= {name: None} | {f"{name}.{below}": None for below in paths(hint)}
    return tuple(found)


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing if no known word is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def hint_of(hint: Any, inside: Any, item: Any) -> Any:
    """The hint of key `item` of a section; Any if there is none."""
    return fields_of(hint, inside).get(item, Any) if isinstance(item, str) else Any


def keys_beside(hint: Any, value: Any, path: Sequence[str]) -> set[str]:
    """Keys that the section at `path` below a section of type `hint` knows, given its kind in `value`."""
    for item in path:
        hint = hint_of(hint, value, item)
        value = value.get(item) if isinstance(value, dict) else None
    return set(fields_of(hint, value))
