"""The scorers that a config may name: each module of `evaluation/scorers/`, found there and listed nowhere.

It is imported by its place, not by a statement: configs know no scorer, and one more is one more file.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Annotated, Any, Union

from pydantic import Discriminator

PLACE = "tunix_rt.evaluation.scorers"


def scorer_sections() -> tuple[type, ...]:
    """The section of every scorer, in the order of their names."""
    names = sorted(module.name for module in pkgutil.iter_modules(import_module(PLACE).__path__))
    return tuple(import_module(f"{PLACE}.{name}").SCORER for name in names)


ScorerConfig: Any = Annotated[Union[scorer_sections()], Discriminator("kind")]  # noqa: UP007 (made at run time)
"""Any of them, told apart by `kind`."""
