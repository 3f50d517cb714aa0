"""The shapes that people's records have, by the fields that tell them apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tunix_rt.config.choices import Adapter
from tunix_rt.errors import DataError

EXPECTED = ("expected_answer", "ground_truth", "reference_answer")
"""Fields that hold the answer to a prompt and nothing that could be learned."""
SIGNS: tuple[tuple[Adapter, str], ...] = (
    ("trace", "prompt steps final_answer"),
    ("preference", "chosen rejected"),
    ("chat", "messages"),
    ("sharegpt", "conversations|conversation"),
    ("alpaca", "instruction output"),
    ("prompt_completion", "prompt completion"),
    ("evaluation_set", "prompt expected_answer"),
    ("problem_solution", "problem|question|prompt solution"),
    ("problem_solution", "problem|question|prompt reasoning answer"),
    ("gsm8k", "question answer"),
    ("problem_solution", "problem|prompt answer"),
    ("evaluation_set", f"problem|question|prompt {'|'.join(EXPECTED)}"),
)
"""Adapters and the fields by which they are recognised, in this order; `a|b`: one of them. An `answer` that
does not end in a line `#### x` is not GSM8K's."""
NAMES = frozenset(name for _, fields in SIGNS for name in re.split("[ |]", fields))


def detect(record: Mapping[str, Any], where: str) -> Adapter:
    """The adapter that fits the record's fields. Raises DataError naming the fields and `columns`."""
    alone = [name for name in ("chosen", "rejected") if record.get(name) is not None]
    for adapter, fields in SIGNS:
        if len(alone) == 1 and not {"answer", *EXPECTED}.isdisjoint(re.split("[ |]", fields)):
            continue  # beside one of a pair, an answer is not what is to be learned
        if all(any(record.get(name) is not None for name in field.split("|")) for field in fields.split()):
            return "problem_solution" if adapter == "gsm8k" and not has_mark(record["answer"]) else adapter
    raise DataError(f"{where}: {_half(record, *alone) if len(alone) == 1 else _unknown(record)}")


def _half(record: Mapping[str, Any], name: str) -> str:
    other = "rejected" if name == "chosen" else "chosen"
    state = "null" if other in record else "missing"
    return f"{other}: {state}, and there is {name}: a pair has both (columns={{{other}: FIELD}})"


def _unknown(record: Mapping[str, Any]) -> str:
    shown = [name if record[name] is not None else f"{name} (null)" for name in sorted(record)]
    inside = [name for name in record if isinstance(record[name], dict) and not NAMES.isdisjoint(record[name])]
    hint = f"; what is inside {inside[0]!r} has to stand at the top of the record" if inside else ""
    return (
        f"no known shape has the fields {', '.join(shown) or 'none'}; name them: "
        "columns={prompt: FIELD, completion: FIELD} (or messages, system, reasoning, answer, chosen and rejected; "
        f"expected_answer: a prompt to be asked){hint}"
    )


def has_mark(answer: Any) -> bool:
    """Whether a text ends in a line `#### x`."""
    last = answer.rpartition("####") if isinstance(answer, str) else ("", "", "")
    return bool(last[1] and last[2].strip()) and "\n" not in last[2].strip()
