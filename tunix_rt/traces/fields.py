"""Fields of a record around its text: numbers where text is expected, and what an adapter does not use."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

from tunix_rt.files import JsonObject
from tunix_rt.traces.messages import Rules
from tunix_rt.traces.trace import GROUP, finite

SIGNIFICANT = frozenset(
    "audio context documents function_call functions history image images input label reasoning reasoning_content "
    "system system_prompt thinking thought tools videos weight".split()
)
"""Fields that would matter to what is learned; where an adapter does not use one, it is counted."""
OWN_GROUP = "own_group"
"""Key of `meta` for a field `group` that nobody declared to decide the split."""


def with_numbers_as_text(record: JsonObject, names: Iterable[str], rules: Rules) -> JsonObject:
    """The record with integers of these fields as text, which is counted: `42` is written in one way only.

    Other numbers are not: `0.50` is read as 0.5.
    """
    numbers = {name: str(record[name]) for name in names if type(record.get(name)) is int}
    if numbers:
        rules.noted["numbers written as text"] += len(numbers)
    return record | numbers


def other_fields(record: Mapping[str, Any], used: Container[str], rules: Rules) -> JsonObject:
    """The fields that an adapter does not use, as JSON has them: they become `meta`. Those that matter are counted.

    A field `group` becomes `own_group`: only `meta.group`, or a declared column, decides the split.
    """
    rest = {name: finite(value) for name, value in record.items() if name not in used and name not in ("id", "meta")}
    given = [name for name, value in rest.items() if value not in (None, "", [], {})]
    rules.unused.update(given)
    for name in SIGNIFICANT.intersection(given):
        rules.noted[f"field {name} not used"] += 1
    if GROUP in rest:
        rules.noted[f"field {GROUP} called meta.{OWN_GROUP}"] += 1
        rest[OWN_GROUP] = rest.pop(GROUP)
    return rest


def answer_of(record: Mapping[str, Any]) -> str | None:
    """The final answer as the source gives it beside the text."""
    value = record.get("answer", record.get("final_answer"))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value.strip() else None
