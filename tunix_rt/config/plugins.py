"""Sections of the config that are found by their place: one more is one more file.

They are imported by name, not by a statement: configs know none of them.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module


def sections_in(package: str, attribute: str) -> tuple[type, ...]:
    """The section that each module of a package has as `attribute`, in the order of the modules' names."""
    names = sorted(module.name for module in pkgutil.iter_modules(import_module(package).__path__))
    modules = (import_module(f"{package}.{name}") for name in names)
    return tuple(getattr(module, attribute) for module in modules if hasattr(module, attribute))
