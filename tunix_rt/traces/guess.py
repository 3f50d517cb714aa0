"""Columns that people's files call otherwise → fields of a shape, seen from the first records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunix_rt.config.choices import Adapter
from tunix_rt.errors import DataError
from tunix_rt.traces.adapters import ADAPTERS
from tunix_rt.traces.data_files import Columns
from tunix_rt.traces.shapes import detect
from tunix_rt.traces.thoughts import has_tags

QUESTIONS = ("question", "query", "input", "problem", "instruction", "text", "prompt", "source")
ANSWERS = ("completion", "response", "output", "solution", "answer", "target", "reply", "label")
"""Names of columns that are often a prompt and what answers it, in the order in which they are taken."""
CONTEXT = "context"
"""What a question is about, as Dolly and SQuAD call it; Alpaca's shape has a place for it."""
PAIRS = frozenset(("prompt_completion", "problem_solution"))
"""Shapes of a question and an answer that have no place for a context."""
OTHER_NAMES = {
    "system": ("system_prompt", "system_message"),
    "reasoning": (
        *("think", "thinking", "thought", "thoughts", "cot", "complex_cot", "chain_of_thought", "rationale"),
        *("reasoning_content", "reasoning_trace", "thinking_trajectories"),
    ),
}
"""A field that shapes may have → what else it is called, in any case."""


def guessed(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Columns for fields that most of the records have under another name; empty if there is nothing to rename."""
    columns = {name.lower(): name for record in records for name, value in record.items() if _is_text(value)}
    named = _asked(records, columns)
    known = [shape for record in records if (shape := shape_of(Columns(named, "").rename(dict(record))))]
    if not known:
        return {}
    fields = ADAPTERS[max(known, key=known.count)][1]
    for field, names in OTHER_NAMES.items():
        free = [columns[name] for name in names if name in columns and columns[name] not in named.values()]
        if not free or field not in fields or field in columns:
            continue
        if field != "reasoning" or not any(has_tags(str(record)) for record in records):  # else they are there already
            named[field] = free[0]
    return named


def shape_of(record: dict[str, Any]) -> Adapter | None:
    """The adapter that fits a record; None without one."""
    try:
        return detect(record, "")
    except DataError:
        return None


def _asked(records: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> dict[str, str]:
    """Columns of the question and the answer, if most records have no known shape or have a context beside them."""
    shapes = [shape_of(dict(record)) for record in records]
    known = sum(shape is not None for shape in shapes) * 2 > len(records)
    beside = CONTEXT in columns and PAIRS.issuperset(shapes) and not {"solution", "answer"} <= columns.keys()
    if known and not beside:
        return {}
    prompt = next((columns[name] for name in QUESTIONS if name in columns), None)
    answer = next((columns[name] for name in ANSWERS if name in columns and columns[name] != prompt), None)
    if prompt is None or answer is None:
        return {}
    if CONTEXT not in columns:
        return {"prompt": prompt, "completion": answer}
    named = {"instruction": prompt, "input": columns[CONTEXT], "output": answer}
    return {field: column for field, column in named.items() if field != column}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and len(value) == 1 and isinstance(value[0], str))
