"""Records in other formats → traces: GSM8K, chat messages, prompt and completion, evaluation sets.

In: one JSON object and its location (`file:line`). Out: a Trace, or a DataError that names place, field
and what was expected. Fields that an adapter does not use go to `meta`, so that results can be sliced by them.
Opens no file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tunix_rt.config.choices import Adapter
from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject
from tunix_rt.traces.trace import (
    MAX_STEP,
    MAX_STEPS,
    MAX_TEXT,
    Message,
    Step,
    Trace,
    history_field,
    id_field,
    meta_field,
    parse_trace,
    text_field,
)

CALCULATION = re.compile(r"<<[^<>\n]*>>")
"""GSM8K's calculator annotations, `<<48/2=24>>` (Cobbe et al. 2021, arXiv 2110.14168)."""
MARKED = re.compile(r"\s*(?:####|(?:final\s+)?answer\s*:)\s*(?P<answer>\S.*)", re.IGNORECASE)
"""A line that is marked as the answer: `#### 42`, `Answer: 42`, `Final answer: 42`."""
BOXED = "\\boxed{"
REASONING = ("reasoning_content", "reasoning", "thinking")
"""The fields that hold a message's reasoning, separate from its `content`, in the APIs and chat templates of DeepSeek
and Qwen, of vLLM, and of gpt-oss."""


def adapt(record: JsonObject, adapter: Adapter, where: str) -> Trace:
    """Convert a record with the named `adapter`. Raises DataError: place, field, expectation."""
    return ADAPTERS[adapter](record, where)


def _gsm8k(record: JsonObject, where: str) -> Trace:
    """`question`; `answer`: one step per line, then `#### x`. Calculator annotations are removed."""
    prompt = text_field(record, "question", where, MAX_TEXT)
    solution, mark, answer = text_field(record, "answer", where, MAX_TEXT).rpartition("####")
    if not mark or not answer.strip() or "\n" in answer.strip():
        raise DataError(f"{where}: answer: expected to end in a line '#### x' with the final answer")
    lines = _lines(CALCULATION.sub("", solution))
    return _trace(record, ("question", "answer"), where, prompt, lines, answer.strip())


def _chat(record: JsonObject, where: str) -> Trace:
    """`messages`: user and assistant alternate. The last two are the trace, the earlier ones its `history`.

    `_solution` splits the last message into steps and answer; the lines of its `REASONING`, if any, come first.
    A system message may come first; it goes to `meta.system`: `format.system` decides what the model sees. Reasoning
    in previous turns is left out, as chat templates do.
    """
    messages = record.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise DataError(f"{where}: messages: expected a list of objects with role and content")
    roles = [message.get("role") for message in messages]
    first = 1 if roles[:1] == ["system"] else 0
    if not roles[first:] or roles[first:] != ["user", "assistant"] * (len(roles[first:]) // 2):
        shown = ", ".join(str(role) for role in roles[:6]) or "nothing"
        raise DataError(
            f"{where}: messages: expected user and assistant by turns (a system message may come first), "
            f"ending with the assistant, got {shown}"
        )
    texts = [text_field(message, "content", f"{where}: messages[{i}]", MAX_TEXT) for i, message in enumerate(messages)]
    steps, answer = _solution(texts[-1], f"{where}: messages[{len(texts) - 1}].content")
    steps = _reasoning(messages[-1], f"{where}: messages[{len(texts) - 1}]") + steps
    system: JsonObject = {"system": texts[0]} if first else {}
    history = history_field(messages[first:-2], f"{where}: messages")
    return _trace(record | system, ("messages",), where, texts[-2], steps, answer, history)


def _prompt_completion(record: JsonObject, where: str) -> Trace:
    """`prompt` and `completion`, which `_solution` splits into steps and answer."""
    prompt = text_field(record, "prompt", where, MAX_TEXT)
    completion = text_field(record, "completion", where, MAX_TEXT)
    steps, answer = _solution(completion, f"{where}: completion")
    return _trace(record, ("prompt", "completion"), where, prompt, steps, answer)


def _evaluation_set(record: JsonObject, where: str) -> Trace:
    """`prompt` and `expected_answer`; no steps. `section`, `category`, `difficulty` go to `meta`."""
    prompt = text_field(record, "prompt", where, MAX_TEXT)
    answer = text_field(record, "expected_answer", where, MAX_TEXT)
    return _trace(record, ("prompt", "expected_answer"), where, prompt, (), answer)


ADAPTERS: dict[Adapter, Callable[[JsonObject, str], Trace]] = {
    "trace": parse_trace,
    "gsm8k": _gsm8k,
    "chat": _chat,
    "prompt_completion": _prompt_completion,
    "evaluation_set": _evaluation_set,
}


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def _reasoning(message: JsonObject, where: str) -> list[str]:
    """The lines of a message's reasoning; empty if it has none."""
    named = [name for name in REASONING if message.get(name)]
    if len(named) > 1:
        raise DataError(f"{where}: {' and '.join(named)}: expected one of them")
    return _lines(text_field(message, named[0], where, MAX_TEXT)) if named else []


def _solution(text: str, where: str) -> tuple[list[str], str]:
    """Steps and answer of a free solution: the answer is the last marked one, else the last line; the rest are steps.

    Markers are `#### x`, `Answer: x` and `\\boxed{x}`. The tags of `<think>…</think>` only end a line.
    """
    lines = _lines(text.replace("<think>", "\n").replace("</think>", "\n"))
    if not lines:
        raise DataError(f"{where}: nothing but white space, expected steps and an answer")
    for place in reversed(range(len(lines))):
        marked = MARKED.fullmatch(lines[place])
        if marked:
            return lines[:place] + lines[place + 1 :], _boxed(marked["answer"]) or marked["answer"]
        boxed = _boxed(lines[place])
        if boxed:
            alone = lines[place].strip("$ ") == f"{BOXED}{boxed}}}"
            return lines[:place] + lines[place + alone :], boxed
    return lines[:-1], lines[-1]


def _boxed(line: str) -> str | None:
    """The content of the last `\\boxed{…}` of a line, braces balanced; None if there is none."""
    begin = line.rfind(BOXED)
    if begin < 0:
        return None
    depth = 1
    for place in range(begin + len(BOXED), len(line)):
        depth += {"{": 1, "}": -1}.get(line[place], 0)
        if depth == 0:
            return line[begin + len(BOXED) : place].strip() or None
    return None


def _trace(
    record: JsonObject,
    used: Sequence[str],
    where: str,
    prompt: str,
    steps: Sequence[str],
    answer: str,
    history: tuple[Message, ...] = (),
) -> Trace:
    """Number the steps and gather `meta`: the record's `meta` object, then every field that is not in `used`."""
    if len(steps) > MAX_STEPS:
        raise DataError(f"{where}: {len(steps)} steps (lines before the answer), expected at most {MAX_STEPS}")
    for line in steps:
        if len(line) > MAX_STEP:
            raise DataError(f"{where}: a step (line) of {len(line)} characters, expected at most {MAX_STEP}")
    rest: dict[str, Any] = {name: value for name, value in record.items() if name not in (*used, "id", "meta")}
    meta = meta_field({"meta": rest}, where) | meta_field(record, where)
    numbered = tuple(Step(place, "step", line) for place, line in enumerate(steps))
    trace = Trace("", prompt, numbered, answer, meta, history)
    return replace(trace, id=id_field(record, meta, trace.questions[-1], where))
