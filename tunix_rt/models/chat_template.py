"""Renders a chat template as `transformers` does, with a declared date instead of today's, and within limits.

A template is a program by the model's author; the sandbox of `transformers` (no files, no Python internals) bounds
neither time nor memory. `transformers` is imported only here, inside the function; it imports neither torch nor jax.
"""

from __future__ import annotations

import datetime
import resource
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import Template, TemplateError, TemplateRuntimeError, nodes

from tunix_rt.errors import ModelError
from tunix_rt.files import JsonObject
from tunix_rt.models.folder import TEMPLATES

ITERATIONS = 200_000
"""Limit for all loops and macros together, per conversation; a real template takes a handful per message."""
SECONDS = 20.0
KIBIBYTES = 2**20
"""How much the process may grow while rendering (if the system counts in kibibytes, as Linux does)."""
SIZE = 10**7
"""Limit on the characters or items of a product, and on the result of a power, in bits."""
SPEND = "_spend"


def read_templates(folder: Path, config: JsonObject) -> dict[str, str]:
    """The chat templates by name: those in files, else those of tokenizer_config.json; the usual one is `default`."""
    files = {path.stem: path for path in (folder / TEMPLATES).glob("*.jinja")}
    if (folder / "chat_template.jinja").is_file():
        files.setdefault("default", folder / "chat_template.jinja")
    if files:
        return {name: path.read_text("utf-8") for name, path in sorted(files.items())}
    declared = config.get("chat_template")
    if isinstance(declared, list):
        found = {item.get("name"): item.get("template") for item in declared if isinstance(item, dict)}
    else:
        found = declared if isinstance(declared, dict) else {"default": declared}
    return {name: text for name, text in found.items() if isinstance(name, str) and isinstance(text, str)}


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    variables: Mapping[str, Any],
    date: str | None,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The text of a conversation. Raises ModelError if the template refuses the messages, fails or does not end."""

    def strftime_now(format: str) -> str:
        if date is None:
            raise TemplateError(
                "it writes the date of the day, so that what is trained would change from day to day; "
                "declare one: format.date=YYYY-MM-DD"
            )
        return datetime.date.fromisoformat(date).strftime(format)

    fixed = {"messages": [dict(message) for message in messages], "tools": list(tools) or None, "documents": None}
    try:
        compiled, budget = _compiled(template)
        budget.grant()
        return str(compiled.render({**variables, **fixed, "strftime_now": strftime_now}))
    except Exception as error:  # a template from elsewhere may raise anything
        what = str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
        raise ModelError(f"the chat template refuses the messages: {what}") from None


@lru_cache(maxsize=16)
def _compiled(template: str) -> tuple[Template, _Budget]:
    """The template as `transformers` compiles it, with its budget."""
    from transformers.utils.chat_template_utils import _cached_compile_jinja_template

    budget = _Budget()
    return _bounded(_cached_compile_jinja_template("").environment, template, budget), budget


class _Budget:
    """The remaining budget of the conversation that is being rendered."""

    def __init__(self) -> None:
        self.grant()

    def grant(self) -> None:
        """Grant a full budget, for one conversation."""
        self.left, self.deadline = ITERATIONS, time.monotonic() + SECONDS
        self.memory = _memory() + KIBIBYTES

    def spend(self) -> None:
        """Count one iteration. Raises TemplateRuntimeError when the budget is exceeded."""
        self.left -= 1
        if self.left < 0 or time.monotonic() > self.deadline or _memory() > self.memory:
            raise TemplateRuntimeError(
                f"it does not end, or grows without end (at most {ITERATIONS:,} iterations, {SECONDS:g} seconds)"
            )


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _bounded(environment: jinja2.Environment, template: str, budget: _Budget) -> Template:
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
        if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > SIZE:
            raise TemplateRuntimeError("it computes a power that is too large")
        return left**right
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, str | list | tuple) and isinstance(times, int) and len(sequence) * times > SIZE:
            raise TemplateRuntimeError("it repeats a text or a list too often")
    return left * right
