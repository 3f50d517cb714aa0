"""Limits on a chat template: it is a program written by the model's author, and may loop or grow without end.

In: the environment in which `transformers` runs templates (a sandbox: no files, no Python internals) and a template.
Out: the template, which counts its own iterations. Handles Jinja only, no messages or tokenizers.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jinja2
from jinja2 import TemplateRuntimeError, nodes

ITERATIONS = 200_000
"""Limit for all loops and macros together, per conversation; a real template takes a handful per message."""
SECONDS = 20.0
KIBIBYTES = 2**20
"""How much the process may grow while rendering (if the system counts in kibibytes, as Linux does)."""
SIZE = 10**7
"""Limit on the characters or items of a product, and on the result of a power, in bits."""
SPEND = "_spend"


class Budget:
    """The remaining budget of the conversation that is being rendered."""

    def __init__(self) -> None:
        self.left, self.deadline, self.memory = 0, 0.0, 0

    @contextmanager
    def granted(self) -> Iterator[None]:
        """Grant a full budget for the block."""
        self.left, self.deadline = ITERATIONS, time.monotonic() + SECONDS
        self.memory = _memory() + KIBIBYTES
        yield

    def spend(self) -> None:
        """Count one iteration. Raises TemplateRuntimeError when the budget is exceeded."""
        self.left -= 1
        if self.left < 0 or time.monotonic() > self.deadline or _memory() > self.memory:
            raise TemplateRuntimeError(
                f"it does not end, or grows without end (at most {ITERATIONS:,} iterations, {SECONDS:g} seconds)"
            )


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def bounded(environment: jinja2.Environment, template: str, budget: Budget) -> jinja2.Template:
    """The template with a call to `budget.spend` in each loop and macro, and with products and powers bounded in size.

    Modifies `environment`; use it for no other template. Raises TemplateSyntaxError.
    """
    environment.globals[SPEND] = budget.spend
    environment.intercepted_binops = frozenset(("*", "**"))  # type: ignore[attr-defined]
    environment.call_binop = _product  # type: ignore[attr-defined]
    tree = environment.parse(template)
    for block in tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock)):
        call = nodes.Call(nodes.Name(SPEND, "load"), [], [], None, None)
        block.body.insert(0, nodes.ExprStmt(call).set_lineno(block.lineno))  # type: ignore[attr-defined]
    tree.set_environment(environment)
    return environment.from_string(tree)


def _product(context: Any, operator: str, left: Any, right: Any) -> Any:
    """`left * right` or `left ** right`. Raises TemplateRuntimeError if the result would be too large."""
    if operator == "**":
        if _is_large_power(left, right):
            raise TemplateRuntimeError("it computes a power that is too large")
        return left**right
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, str | list | tuple) and isinstance(times, int) and len(sequence) * times > SIZE:
            raise TemplateRuntimeError("it repeats a text or a list too often")
    return left * right


def _is_large_power(base: Any, exponent: Any) -> bool:
    return isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > SIZE
