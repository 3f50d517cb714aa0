"""Records in other formats → traces: GSM8K, chat messages, prompt and completion, evaluation sets.

Fields that an adapter does not use go to `meta`, so that results can be sliced by them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from tunix_rt.config.choices import Adapter
from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject
from tunix_rt.traces.trace import (
    MAX_STEP,
    MAX_STEPS,
    Step,
    Trace,
    conversation,
    identified,
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
    if adapter == "trace":
        return parse_trace(record, where)
    read, used = ADAPTERS[adapter]
    trace = read(record, where)
    rest = {name: value for name, value in (record | trace.meta).items() if name not in (*used, "id", "meta")}
    meta = meta_field({"meta": rest}, where) | meta_field(record, where)
    return identified(replace(trace, meta=meta), record, where)


def _gsm8k(record: JsonObject, where: str) -> Trace:
    """`question`; `answer`: one step per line, then `#### x`. Calculator annotations are removed."""
    prompt = text_field(record, "question", where)
    solution, mark, answer = text_field(record, "answer", where).rpartition("####")
    if not mark or not answer.strip() or "\n" in answer.strip():
        raise DataError(f"{where}: answer: expected to end in a line '#### x' with the final answer")
    return Trace("", prompt, _steps(_lines(CALCULATION.sub("", solution)), where), answer.strip())


def _chat(record: JsonObject, where: str) -> Trace:
    """`messages`: the last two are the trace (`_solution`, after the lines of its `REASONING`), the rest its `history`.

    A first system message goes to `meta.system`: `format.system` decides what the model sees. Reasoning in previous
    turns is left out, as chat templates do.
    """
    said = conversation(record.get("messages"), f"{where}: messages", system=True)
    place = f"{where}: messages[{len(said) - 1}]"
    lines, answer = _solution(said[-1].content, f"{place}.content")
    steps = _steps(_reasoning(record["messages"][-1], place) + lines, where)
    system = {"system": said[0].content} if said[0].role == "system" else {}
    return Trace("", said[-2].content, steps, answer, system, said[len(system) : -2])


def _prompt_completion(record: JsonObject, where: str) -> Trace:
    """`prompt` and `completion`, which `_solution` splits into steps and answer."""
    prompt = text_field(record, "prompt", where)
    lines, answer = _solution(text_field(record, "completion", where), f"{where}: completion")
    return Trace("", prompt, _steps(lines, where), answer)


def _evaluation_set(record: JsonObject, where: str) -> Trace:
    """`prompt` and `expected_answer`; no steps. `section`, `category`, `difficulty` go to `meta`."""
    return Trace("", text_field(record, "prompt", where), (), text_field(record, "expected_answer", where))


ADAPTERS: dict[Adapter, tuple[Callable[[JsonObject, str], Trace], tuple[str, ...]]] = {
    "gsm8k": (_gsm8k, ("question", "answer")),
    "chat": (_chat, ("messages",)),
    "prompt_completion": (_prompt_completion, ("prompt", "completion")),
    "evaluation_set": (_evaluation_set, ("prompt", "expected_answer")),
}
"""Functions that make a trace of a record, and the fields that they use: all others are added to its `meta`."""


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def _reasoning(message: JsonObject, where: str) -> list[str]:
    """The lines of a message's reasoning; empty if it has none."""
    named = [name for name in REASONING if message.get(name)]
    if len(named) > 1:
        raise DataError(f"{where}: {' and '.join(named)}: expected one of them")
    return _lines(text_field(message, named[0], where)) if named else []


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
    _, found, rest = line.rpartition(BOXED)
    depth = 1
    for place, character in enumerate(rest if found else ""):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return rest[:place].strip() or None
    return None


def _steps(lines: Sequence[str], where: str) -> tuple[Step, ...]:
    if len(lines) > MAX_STEPS:
        raise DataError(f"{where}: {len(lines)} steps (lines before the answer), expected at most {MAX_STEPS}")
    for line in lines:
        if len(line) > MAX_STEP:
            raise DataError(f"{where}: a step (line) of {len(line)} characters, expected at most {MAX_STEP}")
    return tuple(Step(place, "step", line) for place, line in enumerate(lines))
