"""The scorers that a config may name: each module of `evaluation/scorers/`, and each that an installed package brings.

They are listed nowhere: one more is one more file. A package names its own by entry points of the group
`tunix_rt.scorers` (docs/rewards.md); one that cannot be used troubles only a config that names it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, Union, get_args, get_type_hints

from pydantic import Discriminator

from tunix_rt.config.plugins import sections_in

GROUP = "tunix_rt.scorers"
UNUSABLE: dict[str, str] = {}
"""Name of each entry point that gives no scorer → why."""


def scorer_sections() -> tuple[type, ...]:
    """The section of every scorer: ours in the order of their names, then those of other packages."""
    ours = sections_in("tunix_rt.evaluation.scorers", "SCORER")
    return *ours, *_given([_kind_of(section) for section in ours])


def _given(taken: Collection[Any]) -> Iterator[type]:
    """The sections that entry points name; the kinds that are `taken` are not theirs to name."""
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        try:
            section = point.load()
            problem = "there is one of this name already" if point.name in taken else _problem(section, point.name)
        except Exception as error:  # whatever goes wrong while a package is imported
            section, problem = None, f"{type(error).__name__}: {error}"
        if not problem:
            taken = [*taken, point.name]
            yield section
        else:
            UNUSABLE[point.name] = f"that of {_origin(point)} cannot be used: {problem}"


def _problem(section: Any, name: str) -> str:
    """Why this is not the section of a scorer of that name; empty if it is."""
    base = import_module("tunix_rt.evaluation.scorer").Scorer
    if not isinstance(section, type) or not issubclass(section, base) or not is_dataclass(section):
        return "it is no @section class that derives from tunix_rt.evaluation.scorer.Scorer"
    if _kind_of(section) != name:
        return f'it needs `kind: Literal["{name}"]`, the name of its entry point'
    return "" if getattr(section, "match", None) is not base.match else "it has no `match`"


def _kind_of(section: Any) -> str | None:
    """The one value of its `kind`."""
    kinds = get_args(get_type_hints(section)["kind"]) if "kind" in {field.name for field in fields(section)} else ()
    return kinds[0] if len(kinds) == 1 else None


def _origin(point: EntryPoint) -> str:
    return f"package {point.dist.name if point.dist is not None else 'unknown'} ({point.value})"


ScorerConfig: Any = Annotated[Union[scorer_sections()], Discriminator("kind")]  # noqa: UP007 (made at run time)
"""Any of them, told apart by `kind`."""
