"""Renders a chat template as `transformers` does, with a declared date instead of today's.

In: the template's text, messages, its other variables. Out: text. `transformers` is imported only here, inside
the function, and it imports neither torch nor jax.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError

from tunix_rt.errors import ModelError
from tunix_rt.models.bounded import Budget, bounded

CLOCK = "strftime_now"
CODES = ("%Y", "%y", "%m", "%d", "%B", "%b", "%A", "%a", "%j")
ON_THAT_DAY = (
    "{%- macro strftime_now(format) -%}{%- set day = namespace(text=format) -%}"
    "{%- for code, value in declared_date.items() -%}{%- set day.text = day.text | replace(code, value) -%}"
    "{%- endfor -%}{{ day.text }}{%- endmacro %}\n"
)
NO_DAY = (
    "{%- macro strftime_now(format) -%}{{ raise_exception('it writes the date of the day, so that what is trained "
    "would change from day to day; declare one: format.date=YYYY-MM-DD') }}{%- endmacro %}\n"
)
"""Prepended to a template, the macro replaces the function of this name. (Jinja drops the newline after a block.)"""


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    variables: Mapping[str, Any],
    date: str | None,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The text of a conversation. Raises ModelError if the template refuses the messages, fails or does not end."""
    given = dict(variables)
    if CLOCK in template:
        template = (NO_DAY if date is None else ON_THAT_DAY) + template
        day = None if date is None else datetime.date.fromisoformat(date)
        given["declared_date"] = {} if day is None else {code: day.strftime(code) for code in CODES}
    conversation = [dict(message) for message in messages]
    try:
        compiled, budget = _compiled(template)
        with budget.granted():
            return str(compiled.render(messages=conversation, tools=list(tools) or None, documents=None, **given))
    except Exception as error:  # a template from elsewhere may raise anything
        what = str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
        raise ModelError(f"the chat template refuses the messages: {what}") from None


@lru_cache(maxsize=16)
def _compiled(template: str) -> tuple[Template, Budget]:
    """The template as `transformers` compiles it, with its budget."""
    from transformers.utils.chat_template_utils import _cached_compile_jinja_template

    budget = Budget()
    return bounded(_cached_compile_jinja_template("").environment, template, budget), budget
