"""A record of the shape `trace`, version 1.0 or 1.1 → the trace, checked."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject
from tunix_rt.traces.trace import (
    MAX_STEPS,
    READABLE,
    VERSION,
    Alternative,
    Message,
    Span,
    Step,
    Trace,
    identified,
    kind_of,
    message_of,
    meta_field,
    objects,
    text_field,
)

TRACE_FIELDS = tuple(
    "trace_version prompt steps final_answer messages history completion tools answer_span rejected system".split()
)
"""Fields of a record of this shape, besides `id` and `meta`."""


def parse_trace(record: JsonObject, where: str) -> Trace:
    """Check a record of version 1.0 or 1.1 and create the trace; its id may not be unique yet.

    `where` (`file:line`) starts the message. Raises DataError naming the field and what was expected.
    """
    version = record.get("trace_version", VERSION)
    if version not in READABLE:
        raise DataError(f"{where}: trace_version: {version!r}, expected {' or '.join(READABLE)}")
    prompt, answer = text_field(record, "prompt", where), text_field(record, "final_answer", where, empty=True)
    messages = _recorded_messages(record, prompt, where)
    completion = _recorded_completion(record.get("completion"), f"{where}: completion")
    if not answer and completion is None:
        raise DataError(f"{where}: final_answer: 0 characters, expected at least 1")
    length = -1 if completion is None else len(completion.content)
    trace = Trace(
        id="",
        prompt=prompt,
        steps=_steps(record.get("steps"), where, length),
        final_answer=answer,
        meta=meta_field(record, where),
        messages=messages,
        completion=completion,
        tools=objects(record.get("tools"), f"{where}: tools"),
        answer_span=_span(record.get("answer_span"), f"{where}: answer_span", length),
        rejected=_recorded_rejected(record.get("rejected"), f"{where}: rejected"),
    )
    _check_spans(trace, where)
    return identified(trace, record, where)


def _check_spans(trace: Trace, where: str) -> None:
    """Raises DataError for a step or an answer that is not what its span says."""
    text = "" if trace.completion is None else trace.completion.content
    labelled = [(f"steps, i={step.i}", step.content, step.span) for step in trace.steps]
    for name, content, span in [*labelled, ("final_answer", trace.final_answer.strip(), trace.answer_span)]:
        if span is not None and text[slice(*span)].strip() != content.strip():
            shown = f"{text[slice(*span)][:60]!r}, expected {content[:60]!r}"
            raise DataError(f"{where}: {name}: [{span[0]}, {span[1]}) of the completion is {shown}")


def _recorded_messages(record: JsonObject, prompt: str, where: str) -> tuple[Message, ...]:
    """`messages`; or, as version 1.0 had it, `history`: user and assistant by turns before the prompt."""
    name = "history" if record.get("history") else "messages"
    found = objects(record.get(name), f"{where}: {name}")
    said = tuple(message_of(item, f"{where}: {name}[{place}]") for place, item in enumerate(found))
    if name == "messages":
        return said
    if [message.role for message in said] != ["user", "assistant"] * (len(said) // 2):
        shown = ", ".join(message.role for message in said[:6])
        raise DataError(f"{where}: history: expected user and assistant by turns, the user first, got {shown}")
    return (*said, Message("user", prompt))


def _recorded_completion(value: Any, where: str) -> Message | None:
    if value is None:
        return None
    record = {"content": value} if isinstance(value, str) else value
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected text, got {kind_of(value)}")
    return message_of(record | {"role": "assistant"}, where)


def _recorded_rejected(value: Any, where: str) -> Alternative | None:
    """The worse completion: text, a message, or `steps` and `final_answer`; a step may be its text alone."""
    if not isinstance(value, dict) or "final_answer" not in value:
        said = _recorded_completion(value, where)
        return None if said is None else Alternative(said)
    given = value.get("steps") or []
    items = [{"i": i, "content": item} if isinstance(item, str) else item for i, item in enumerate(given)]
    return Alternative(None, _steps(items, where, -1), text_field(value, "final_answer", where))


def _steps(value: Any, where: str, length: int) -> tuple[Step, ...]:
    if not isinstance(value, list):
        raise DataError(f"{where}: steps: expected a list, got {kind_of(value)}")
    if len(value) > MAX_STEPS and length < 0:
        raise DataError(f"{where}: steps: {len(value)} of them, expected at most {MAX_STEPS}")
    found = (_step(item, f"{where}: steps[{i}]", length) for i, item in enumerate(value))
    steps = sorted(found, key=lambda step: step.i)
    for step, following in pairwise(steps):
        if step.i == following.i:
            raise DataError(f"{where}: steps: index {step.i} occurs twice")
    return tuple(steps)


def _step(item: Any, where: str, length: int) -> Step:
    if not isinstance(item, dict):
        raise DataError(f"{where}: expected an object, got {kind_of(item)}")
    index, kind = item.get("i"), item.get("type", "step")
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise DataError(f"{where}.i: expected an integer >= 0, got {index!r}")
    if not isinstance(kind, str) or not kind:
        raise DataError(f"{where}.type: expected text, got {kind!r}")
    return Step(index, kind, text_field(item, "content", where), _span(item.get("span"), f"{where}.span", length))


def _span(value: Any, where: str, length: int) -> Span | None:
    if value is None:
        return None
    match value:
        case [int(start), int(end)] if 0 <= start <= end <= length:
            return start, end
    raise DataError(f"{where}: expected [start, end) in the {max(length, 0)} characters of completion, got {value!r}")
