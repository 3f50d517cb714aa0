"""Records of the shapes in use → traces. Text stays as it is; fields that are not used go to `meta` for slicing.

Each adapter has one function and one line in `ADAPTERS`; `detect` finds the one that fits a record (`shapes.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tunix_rt.config.choices import Adapter
from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject
from tunix_rt.traces.fields import answer_of, other_fields, with_numbers_as_text
from tunix_rt.traces.messages import (
    TRAINED,
    Rules,
    conversation,
    is_conversation,
    last_user,
    prompt_messages,
    role_of,
    stripped,
    tools_of,
)
from tunix_rt.traces.preferences import PROMPTS, answered
from tunix_rt.traces.readers import read
from tunix_rt.traces.recorded import TRACE_FIELDS, parse_trace
from tunix_rt.traces.shapes import EXPECTED, detect, has_mark
from tunix_rt.traces.thoughts import has_tags
from tunix_rt.traces.trace import EMPTY, GROUP, Alternative, Message, Step, Trace, identified, meta_field, text_field

CALCULATION = re.compile(r"<<[^<>\n]*=[^<>\n]*>>")
"""GSM8K's calculator annotations, `<<48/2=24>>` (Cobbe et al. 2021, arXiv 2110.14168)."""


def adapt(record: JsonObject, adapter: Adapter, where: str, rules: Rules) -> Trace:
    """Convert a record with the named `adapter` (`auto`: the one that fits). Raises DataError: place, field, way on."""
    if adapter == "auto":
        adapter = detect(record, where)
    make, used = ADAPTERS[adapter]
    trace = make(with_numbers_as_text(record, used, rules), where, rules)
    meta = other_fields(record, used, rules) | meta_field(record, where)
    trace = identified(replace(trace, meta=meta), record, where)
    if rules.strip and trace.completion is None:
        messages = tuple(stripped(message, rules) for message in trace.messages)
        trace = replace(trace, prompt=trace.prompt.strip(), messages=messages, final_answer=trace.final_answer.strip())
    if trace.rejected is not None and trace.rejected.completion is not None:
        trace = replace(trace, rejected=Alternative(stripped(trace.rejected.completion, rules)))
    texts = [m.content for m in (*trace.conversation, trace.completion or Message("assistant", ""))]
    longest = max(map(len, (*texts, *(() if trace.rejected is None else trace.rejected.texts))))
    if longest > rules.max_characters:
        limit = f"at most {rules.max_characters:,} (dataset.max_characters)"
        raise DataError(f"{where}: a text of {longest:,} characters, expected {limit}")
    return trace


def _trace(record: JsonObject, where: str, rules: Rules) -> Trace:
    """`prompt`, `steps`, `final_answer`, and all that a trace holds; `system` may stand beside them."""
    trace, system = parse_trace(record, where), _instructions(_system(record, where))
    if system and any(message.role == "system" for message in trace.conversation):
        raise DataError(f"{where}: system: messages have a system message already; remove one of them")
    return replace(trace, messages=(*system, *trace.conversation)) if system else trace


def _gsm8k(record: JsonObject, where: str, rules: Rules) -> Trace:
    """`question`; `answer`, which ends in a line `#### x`. Calculator annotations are left out, and counted."""
    solution, mark, answer = text_field(record, "answer", where).rpartition("####")
    if not has_mark(record["answer"]):
        raise DataError(f"{where}: answer: expected to end in a line '#### x' with the final answer")
    plain, removed = CALCULATION.subn("", solution)
    rules.noted["calculator annotations left out"] += removed
    question = text_field(record, "question", where)
    return _labelled((Message("user", question),), Message("assistant", plain + mark + answer), where, rules)


def _chat(record: JsonObject, where: str, rules: Rules) -> Trace:
    """`messages`: the assistant's last one is the completion. `system` and `tools` may stand beside them."""
    before, said = conversation(record.get("messages"), f"{where}: messages", rules, _system(record, where))
    return _labelled(before, said, where, rules, tools=tools_of(record, where), answer=answer_of(record))


def _sharegpt(record: JsonObject, where: str, rules: Rules) -> Trace:
    """`conversations` of `from` (human, gpt, …) and `value`; `system` and `tools` may stand beside them."""
    names = ("conversations", "conversation", "messages")
    name = next((name for name in names if record.get(name) is not None), names[0])
    value, system = record.get(name), _system(record, where)
    named = isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "from" in value[0]
    fields = ("from", "value") if named or isinstance(value, str) else ("role", "content")
    before, said = conversation(value, f"{where}: {name}", rules, system, *fields)
    return _labelled(before, said, where, rules, tools=tools_of(record, where), answer=answer_of(record))


def _alpaca(record: JsonObject, where: str, rules: Rules) -> Trace:
    """`instruction`, and `input` after an empty line if there is one; `output`; `system`, `history`, `reasoning`."""
    more = text_field(record, "input", where) if record.get("input") else ""
    asked = text_field(record, "instruction", where, empty=bool(more))
    asked = f"{asked}\n\n{more}" if asked and more else asked or more
    turns = record.get("history") or []
    if not all(isinstance(turn, list) and len(turn) == 2 and all(isinstance(t, str) for t in turn) for turn in turns):
        raise DataError(f"{where}: history: expected pairs of a question and an answer, as texts")
    said = [Message(role, text) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]
    before = (*_instructions(_system(record, where)), *said, Message("user", asked))
    text = _with_reasoning(record, text_field(record, "output", where), where)
    return _labelled(before, Message("assistant", text), where, rules)


def _prompt_completion(record: JsonObject, where: str, rules: Rules) -> Trace:
    """`prompt` and `completion`, each a text or a list of messages; `system`, `reasoning`, `answer` may be there."""
    if record.get("label") is False:
        raise DataError(f"{where}: label: false: a bad answer, which must not be learned as a good one")
    system = _system(record, where)
    if is_conversation(record.get("prompt")) or is_conversation(record.get("completion")):
        said = [*_as_messages(record, "prompt", where), *_learned(_as_messages(record, "completion", where))]
        before, last = conversation(said, f"{where}: prompt and completion", rules, system)
    else:
        before = (*_instructions(system), Message("user", text_field(record, "prompt", where)))
        last = Message("assistant", _with_reasoning(record, text_field(record, "completion", where), where))
    return _labelled(before, last, where, rules, tools=tools_of(record, where), answer=answer_of(record))


def _problem_solution(record: JsonObject, where: str, rules: Rules) -> Trace:
    """A problem with its solution or reasoning, and the final answer where there is one.

    `problem`, `question` or `prompt`; `solution`, or `reasoning` (thoughts, followed by `answer`); `answer`, if not in
    the text, or alone.
    """
    before = _asked(record, where, rules, ("problem", "question", "prompt"))
    if record.get("solution") is not None:
        text = _with_reasoning(record, text_field(record, "solution", where), where)
        return _labelled(before, Message("assistant", text), where, rules, answer=answer_of(record))
    text = _with_reasoning(record, text_field(record, "answer", where), where)
    hint = "; if `answer` is only what is expected: columns={expected_answer: answer}"
    return _labelled(before, Message("assistant", text), where, rules, hint="" if record.get("reasoning") else hint)


def _preference(record: JsonObject, where: str, rules: Rules) -> Trace:
    """`chosen` and `rejected` answers to `prompt`, as texts or conversations; the chosen one is the completion."""
    system = _system(record, where)
    chosen, rejected = (answered(record, name, where, rules, system) for name in ("chosen", "rejected"))
    if chosen.before != rejected.before:
        raise DataError(f"{where}: chosen and rejected answer different conversations")
    tools, answer = tools_of(record, where), answer_of(record)
    trace = _labelled(chosen.before, chosen.said, where, rules, tools=tools, answer=answer)
    return replace(trace, rejected=Alternative(rejected.said))


def _evaluation_set(record: JsonObject, where: str, rules: Rules) -> Trace:
    """A prompt and its final answer alone; no steps. `section`, `category`, `difficulty` go to `meta`."""
    answer = text_field(record, _first(record, EXPECTED), where)
    asked = _asked(record, where, rules, ("prompt", "problem", "question"))
    return Trace("", last_user(asked), (), answer, messages=asked if len(asked) > 1 or asked[0].fields else ())


def _asked(record: Mapping[str, Any], where: str, rules: Rules, names: tuple[str, ...]) -> tuple[Message, ...]:
    """What is asked, in the first of these fields that is given: a text, or messages."""
    name, system = _first(record, names), _instructions(_system(record, where))
    if is_conversation(record.get(name)):
        return (*system, *prompt_messages(record[name], f"{where}: {name}", rules))
    return (*system, Message("user", text_field(record, name, where)))


def _first(record: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The first of these fields that is given; the first of all if none is."""
    return next((name for name in names if record.get(name) is not None), names[0])


ADAPTERS: dict[Adapter, tuple[Callable[[JsonObject, str, Rules], Trace], tuple[str, ...]]] = {
    "trace": (_trace, TRACE_FIELDS),
    "gsm8k": (_gsm8k, ("question", "answer")),
    "chat": (_chat, ("messages", "system", "tools", "functions")),
    "sharegpt": (_sharegpt, ("conversations", "conversation", "messages", "system", "tools", "functions")),
    "alpaca": (_alpaca, ("instruction", "input", "output", "history", "system", "reasoning")),
    "prompt_completion": (_prompt_completion, ("prompt", "completion", "system", "reasoning", "tools", "functions")),
    "problem_solution": (
        _problem_solution,
        ("problem", "prompt", "question", "solution", "reasoning", "answer", "system"),
    ),
    "preference": (_preference, (*PROMPTS, "input", "chosen", "rejected", "system", "tools", "functions")),
    "evaluation_set": (_evaluation_set, ("prompt", "problem", "question", *EXPECTED, "system")),
}
"""Functions that make a trace of a record, and the fields that they use: all others are added to its `meta`."""
FIELDS = tuple(sorted({field for _, used in ADAPTERS.values() for field in used} | {"id", "label", GROUP}))
"""Fields that columns of a file can be named for."""


def _labelled(
    before: tuple[Message, ...],
    said: Message,
    where: str,
    rules: Rules,
    tools: tuple[JsonObject, ...] = (),
    answer: str | None = None,
    hint: str = "",
) -> Trace:
    """A trace of a text: the declared reader labels its steps and answer, unless the source gives the answer.

    `hint`: the way on where no answer is found.
    """
    before, said = tuple(stripped(message, rules) for message in before), stripped(said, rules)
    if rules.strip and not all(m.content or m.fields or m.role in EMPTY for m in (*before, said)):
        raise DataError(f"{where}: a message is nothing but white space")
    text = said.content
    if not text.strip() and not said.fields.get("tool_calls"):
        raise DataError(f"{where}: the completion is nothing but white space")
    reading = read(text, rules.reader)
    if reading.answer is None and rules.reader == "auto":  # thoughts that are not closed, or behind other text
        reading = read(text, "whole")
        if text.strip():
            rules.noted["unclear where thoughts end: the whole text counts as the answer"] += 1
    if answer is None and reading.answer is None and not said.fields.get("tool_calls"):
        raise DataError(f"{where}: format.reader={rules.reader} finds no answer: {reading.problem}{hint}")
    if answer is None and said.fields.get("tool_calls") and reading.answer is None:
        rules.noted["completions without an answer, which call tools: not scored"] += 1
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


def _learned(said: list[Any]) -> list[Any]:
    """The messages of a completion: where the assistant speaks several times, all of it is learned, not only its last.

    TRL's SFTTrainer learns all that stands in `completion` (huggingface/trl, `completion_only_loss`).
    """
    spoken = [isinstance(item, dict) and role_of(item.get("role")) == "assistant" for item in said]
    if sum(spoken) < 2:
        return said
    return [
        item | {"weight": 1.0} if own and all(item.get(name) is None for name in TRAINED) else item
        for item, own in zip(said, spoken, strict=True)
    ]


def _system(record: Mapping[str, Any], where: str) -> str | None:
    return text_field(record, "system", where) if record.get("system") else None


def _instructions(system: str | None) -> tuple[Message, ...]:
    return () if system is None else (Message("system", system),)


def _with_reasoning(record: Mapping[str, Any], text: str, where: str) -> str:
    """The text after its reasoning, as Qwen3 and DeepSeek-R1 write both."""
    reasoning = record.get("reasoning")
    if not reasoning:
        return text
    if isinstance(reasoning, list) and len(reasoning) == 1:  # s1K's thinking_trajectories
        reasoning = reasoning[0]
    if has_tags(text):
        raise DataError(f"{where}: reasoning: the text has thoughts too, which would be learned twice: remove one")
    return f"<think>\n{text_field({'reasoning': reasoning}, 'reasoning', where)}\n</think>\n\n{text}"


def _as_messages(record: Mapping[str, Any], name: str, where: str) -> list[Any]:
    value = record.get(name)
    if isinstance(value, list):
        return value
    return [{"role": "user" if name == "prompt" else "assistant", "content": text_field(record, name, where)}]
