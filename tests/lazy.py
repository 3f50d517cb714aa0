"""Frameworks that test modules name and load only when a test uses them: collecting all tests takes a few seconds."""

from __future__ import annotations

import importlib
from typing import Any


class _Lazy:
    __slots__ = ("_found",)  # no `__dict__`: monkeypatch would look for what it patches there

    def __init__(self, module: str, name: str | None) -> None:
        object.__setattr__(self, "_found", lambda: _get(module, name))

    def __getattr__(self, name: str) -> Any:
        if name in ("_pytestfixturefunction", "_mock_name") or (name[:2] == "__" and name != "__version__"):
            raise AttributeError(name)  # what pytest asks each name of a test module for, in search of fixtures
        return getattr(self._found(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._found(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._found(), name)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._found()(*arguments, **keywords)


def _get(module: str, name: str | None) -> Any:
    found = importlib.import_module(module)
    return found if name is None else getattr(found, name)


def lazy(module: str, name: str | None = None) -> Any:
    """The module, or the function or class `name` of it: to call, to read from and to patch."""
    return _Lazy(module, name)
