"""What is said of a section and of its fields where they are declared: the docstrings, read from the source."""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise
from typing import Any


def section_sentence(cls: Any) -> str:
    """The docstring of a section, on one line."""
    return " ".join((cls.__doc__ or "").split())


@cache
def field_sentences(cls: Any) -> dict[str, str]:
    """Name → docstring, on one line, of each field of a section that has one: the string below it."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    declared = tree.body[0]
    assert isinstance(declared, ast.ClassDef)
    return dict(item for pair in pairwise(declared.body) if (item := _documented(*pair)))


def _documented(field: ast.stmt, below: ast.stmt) -> tuple[str, str] | None:
    """The name of a field and the string below it; None if it is not a field, or nothing is said of it."""
    if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
        return None
    if not isinstance(below, ast.Expr) or not isinstance(below.value, ast.Constant):
        return None
    return field.target.id, " ".join(str(below.value.value).split())
