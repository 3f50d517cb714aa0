"""Records of the shapes in use → traces. Text stays as it is; fields that are not used go to `meta` for slicing.

Each adapter has one function and one line in `ADAPTERS`; `detect` finds the one that fits a record.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tunix_rt.config.choices import Adapter
from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject
from tunix_rt.traces.messages import (
    Rules,
    conversation,
    is_conversation,
    last_user,
    prompt_messages,
    stripped,
    tools_of,
)
from tunix_rt.traces.readers import read
from tunix_rt.traces.recorded import parse_trace
from tunix_rt.traces.trace import Message, Step, Trace, identified, meta_field, text_field

CALCULATION = re.compile(r"<<[^<>\n]*>>")
"""GSM8K's calculator annotations, `<<48/2=24>>` (Cobbe et al. 2021, arXiv 2110.14168)."""


SIGNIFICANT = frozenset(
    "audio context documents function_call functions history image images input label reasoning reasoning_content "
    "system system_prompt thinking thought tools videos weight".split()
)
"""Fields that would matter to what is learned; where an adapter does not use one, it is counted."""


def adapt(record: JsonObject, adapter: Adapter, where: str, rules: Rules) -> Trace:
    """Convert a record with the named `adapter` (`auto`: the one that fits). Raises DataError: place, field, way on."""
    if adapter == "auto":
        adapter = detect(record, where)
    if adapter == "trace":
        trace = parse_trace(record, where)
    else:
        make, used = ADAPTERS[adapter]
        trace = make(record, where, rules)
        rest = {name: _finite(value) for name, value in record.items() if name not in (*used, "id", "meta")}
        for name in SIGNIFICANT.intersection(rest):
            if rest[name] not in (None, "", [], {}):
                rules.noted[f"field {name} not used"] += 1
        trace = identified(replace(trace, meta=rest | meta_field(record, where)), record, where)
    if rules.strip and trace.completion is None:
        messages = tuple(stripped(message, rules) for message in trace.messages)
        trace = replace(trace, prompt=trace.prompt.strip(), messages=messages, final_answer=trace.final_answer.strip())
    longest = max(len(m.content) for m in (*trace.conversation, trace.completion or Message("assistant", "")))
    if longest > rules.max_characters:
        limit = f"at most {rules.max_characters:,} (dataset.max_characters)"
        raise DataError(f"{where}: a text of {longest:,} characters, expected {limit}")
    return trace


def detect(record: Mapping[str, Any], where: str) -> Adapter:
    """The adapter that fits the record's fields. Raises DataError naming the fields and `columns`."""
    for adapter, fields in SIGNS:
        if all(any(record.get(name) is not None for name in field.split("|")) for field in fields.split()):
            return adapter
    raise DataError(
        f"{where}: no known shape has the fields {', '.join(sorted(record)) or 'none'}; name them: "
        "columns={prompt: FIELD, completion: FIELD} (or messages, system, reasoning, answer)"
    )


def _gsm8k(record: JsonObject, where: str, rules: Rules) -> Trace:
    """`question`; `answer`, which ends in a line `#### x`. Calculator annotations are left out, and counted."""
    solution, mark, answer = text_field(record, "answer", where).rpartition("####")
    if not mark or not answer.strip() or "\n" in answer.strip():
        raise DataError(f"{where}: answer: expected to end in a line '#### x' with the final answer")
    plain, removed = CALCULATION.subn("", solution)
    rules.noted["calculator annotations left out"] += removed
    question = text_field(record, "question", where)
    return _labelled((Message("user", question),), Message("assistant", plain + mark + answer), where, rules)


def _chat(record: JsonObject, where: str, rules: Rules) -> Trace:
    """`messages`: the assistant's last one is the completion. `system` and `tools` may stand beside them."""
    before, said = conversation(record.get("messages"), f"{where}: messages", rules, _system(record, where))
    return _labelled(before, said, where, rules, tools=tools_of(record, where), answer=_answer(record))


def _sharegpt(record: JsonObject, where: str, rules: Rules) -> Trace:
    """`conversations` of `from` (human, gpt, …) and `value`; `system` and `tools` may stand beside them."""
    name = next(name for name in ("conversations", "conversation", "messages") if record.get(name) is not None)
    value, system = record[name], _system(record, where)
    named = isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "from" in value[0]
    fields = ("from", "value") if named or isinstance(value, str) else ("role", "content")
    before, said = conversation(value, f"{where}: {name}", rules, system, *fields)
    return _labelled(before, said, where, rules, tools=tools_of(record, where), answer=_answer(record))


def _alpaca(record: JsonObject, where: str, rules: Rules) -> Trace:
    """`instruction`, and `input` after an empty line if there is one; `output`. `system`, `history` may be there."""
    asked = text_field(record, "instruction", where)
    if record.get("input"):
        asked += "\n\n" + text_field(record, "input", where)
    turns = record.get("history") or []
    if not all(isinstance(turn, list) and len(turn) == 2 and all(isinstance(t, str) for t in turn) for turn in turns):
        raise DataError(f"{where}: history: expected pairs of a question and an answer, as texts")
    said = [Message(role, text) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]
    before = (*_instructions(_system(record, where)), *said, Message("user", asked))
    return _labelled(before, Message("assistant", text_field(record, "output", where)), where, rules)


def _prompt_completion(record: JsonObject, where: str, rules: Rules) -> Trace:
    """`prompt` and `completion`, each a text or a list of messages; `system`, `reasoning`, `answer` may be there."""
    if record.get("label") is False:
        raise DataError(f"{where}: label: false: a bad answer, which must not be learned as a good one")
    system = _system(record, where)
    if is_conversation(record.get("prompt")) or is_conversation(record.get("completion")):
        said = [item for name in ("prompt", "completion") for item in _as_messages(record, name, where)]
        before, last = conversation(said, f"{where}: prompt and completion", rules, system)
    else:
        before = (*_instructions(system), Message("user", text_field(record, "prompt", where)))
        last = Message("assistant", _with_reasoning(record, text_field(record, "completion", where), where))
    return _labelled(before, last, where, rules, tools=tools_of(record, where), answer=_answer(record))


def _problem_solution(record: JsonObject, where: str, rules: Rules) -> Trace:
    """A problem with its solution or reasoning, and the final answer where there is one.

    `problem` or `question`; `solution`, or `reasoning` (thoughts, followed by `answer`); `answer`, if not in the text.
    """
    name = "problem" if record.get("problem") is not None else "question"
    before = (*_instructions(_system(record, where)), Message("user", text_field(record, name, where)))
    if record.get("solution") is not None:
        text = _with_reasoning(record, text_field(record, "solution", where), where)
        return _labelled(before, Message("assistant", text), where, rules, answer=_answer(record))
    text = _with_reasoning(record, text_field(record, "answer", where), where)
    return _labelled(before, Message("assistant", text), where, rules)


def _preference(record: JsonObject, where: str, rules: Rules) -> Trace:
    """`chosen` and `rejected` answers to `prompt`, as texts or conversations; the chosen one is the completion."""
    both = []
    for name in ("chosen", "rejected"):
        if is_conversation(record.get(name)):
            whole = any(isinstance(item, dict) and item.get("role") == "user" for item in record[name])
            prompt = [] if whole or record.get("prompt") is None else _as_messages(record, "prompt", where)
            said = [*prompt, *record[name]]
            both.append(conversation(said, f"{where}: {name}", rules, _system(record, where)))
        else:
            asked = prompt_messages(_as_messages(record, "prompt", where), f"{where}: prompt", rules)
            before = (*_instructions(_system(record, where)), *asked)
            both.append((before, Message("assistant", text_field(record, name, where))))
    if both[0][0] != both[1][0]:
        raise DataError(f"{where}: chosen and rejected answer different conversations")
    trace = _labelled(*both[0], where, rules, tools=tools_of(record, where))
    return replace(trace, rejected=both[1][1].content)


def _evaluation_set(record: JsonObject, where: str, rules: Rules) -> Trace:
    """`prompt` and `expected_answer`; no steps. `section`, `category`, `difficulty` go to `meta`."""
    answer = text_field(record, "expected_answer", where)
    asked = (*_instructions(_system(record, where)), Message("user", text_field(record, "prompt", where)))
    return Trace("", asked[-1].content, (), answer, messages=asked if len(asked) > 1 else ())


ADAPTERS: dict[Adapter, tuple[Callable[[JsonObject, str, Rules], Trace], tuple[str, ...]]] = {
    "gsm8k": (_gsm8k, ("question", "answer")),
    "chat": (_chat, ("messages", "system", "tools")),
    "sharegpt": (_sharegpt, ("conversations", "conversation", "messages", "system", "tools")),
    "alpaca": (_alpaca, ("instruction", "input", "output", "history", "system")),
    "prompt_completion": (_prompt_completion, ("prompt", "completion", "system", "reasoning", "tools")),
    "problem_solution": (_problem_solution, ("problem", "question", "solution", "reasoning", "answer", "system")),
    "preference": (_preference, ("prompt", "chosen", "rejected", "system", "tools")),
    "evaluation_set": (_evaluation_set, ("prompt", "expected_answer", "system")),
}
"""Functions that make a trace of a record, and the fields that they use: all others are added to its `meta`."""
SIGNS: tuple[tuple[Adapter, str], ...] = (
    ("trace", "prompt steps final_answer"),
    ("preference", "chosen rejected"),
    ("chat", "messages"),
    ("sharegpt", "conversations|conversation"),
    ("alpaca", "instruction output"),
    ("prompt_completion", "prompt completion"),
    ("evaluation_set", "prompt expected_answer"),
    ("problem_solution", "problem|question solution"),
    ("problem_solution", "problem|question reasoning answer"),
    ("gsm8k", "question answer"),
)
"""Adapters and the fields by which they are recognised, in this order; `a|b`: one of them."""


def _labelled(
    before: tuple[Message, ...],
    said: Message,
    where: str,
    rules: Rules,
    tools: tuple[JsonObject, ...] = (),
    answer: str | None = None,
) -> Trace:
    """A trace of a text: the declared reader labels its steps and answer, unless the source gives the answer."""
    before, said = tuple(stripped(message, rules) for message in before), stripped(said, rules)
    if rules.strip and not all(message.content or message.fields for message in (*before, said)):
        raise DataError(f"{where}: a message is nothing but white space")
    text = said.content
    if not text.strip() and not said.fields.get("tool_calls"):
        raise DataError(f"{where}: the completion is nothing but white space")
    reading = read(text, rules.reader)
    if reading.answer is None and rules.reader == "auto":  # thoughts that are not closed, or behind other text
        reading = read(text, "whole")
    if answer is None and reading.answer is None and not said.fields.get("tool_calls"):
        raise DataError(f"{where}: format.reader={rules.reader} finds no answer: {reading.problem}")
    found = "" if reading.answer is None else text[slice(*reading.answer)]
    same = answer is None or answer.strip() == found
    return Trace(
        id="",
        prompt=last_user(before),
        steps=tuple(Step(i, "step", text[slice(*span)], span) for i, span in enumerate(reading.steps)),
        final_answer=found if answer is None else answer,
        messages=before if len(before) > 1 or before[0].fields else (),
        completion=said,
        tools=tools,
        answer_span=reading.answer if same else None,
    )


def _system(record: Mapping[str, Any], where: str) -> str | None:
    return text_field(record, "system", where) if record.get("system") else None


def _instructions(system: str | None) -> tuple[Message, ...]:
    return () if system is None else (Message("system", system),)


def _answer(record: Mapping[str, Any]) -> str | None:
    """The final answer as the source gives it beside the text."""
    value = record.get("answer", record.get("final_answer"))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value.strip() else None


def _with_reasoning(record: Mapping[str, Any], text: str, where: str) -> str:
    """The text after its reasoning, as Qwen3 and DeepSeek-R1 write both."""
    if not record.get("reasoning"):
        return text
    return f"<think>\n{text_field(record, 'reasoning', where)}\n</think>\n\n{text}"


def _as_messages(record: Mapping[str, Any], name: str, where: str) -> list[Any]:
    value = record.get(name)
    if isinstance(value, list):
        return value
    return [{"role": "user" if name == "prompt" else "assistant", "content": text_field(record, name, where)}]


def _finite(value: Any) -> Any:
    """A value of another field; numbers that JSON does not have (NaN of a table's empty cell) become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
