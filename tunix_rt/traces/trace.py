"""A reasoning trace (prompt → steps → final answer), its rules, and its JSON form, version 1.0."""

from __future__ import annotations

import unicodedata
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject, sha256_bytes, to_json

VERSION = "1.0"
MAX_TEXT = 50_000
MAX_STEP = 20_000
MAX_STEPS = 1_000
MAX_TURNS = 1_000


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its index (unique in the trace, ≥ 0), a free type (`setup`, `calculation`, …), its text."""

    i: int
    type: str
    content: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, verbatim."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Trace:
    """One item of a dataset. `steps` are in order of index; empty for an answer-only item."""

    id: str
    prompt: str
    steps: tuple[Step, ...]
    final_answer: str
    meta: JsonObject = field(default_factory=dict)
    history: tuple[Message, ...] = ()
    """The conversation before `prompt`: user and assistant alternate, the user first."""

    @property
    def questions(self) -> tuple[str, ...]:
        """The question at each of the user's turns, with the conversation before it; the trace's own is last."""
        said = [message.content for message in self.history]
        asked = ["\n".join(said[: place + 1]) for place in range(0, len(said), 2)]
        return (*asked, "\n".join([*said, self.prompt]))

    def to_json(self) -> JsonObject:
        """The record as written to a JSONL file; `history` only if there is one."""
        return {
            "trace_version": VERSION,
            "id": self.id,
            **({"history": [asdict(message) for message in self.history]} if self.history else {}),
            "prompt": self.prompt,
            "steps": [asdict(step) for step in self.steps],
            "final_answer": self.final_answer,
            "meta": self.meta,
        }


def normalise(text: str) -> str:
    """NFKC, case folded, white space collapsed. Operators stay: `1 + 1` is not `1 - 1`."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def prompt_id(question: str) -> str:
    """The id of a trace without its own id: 16 hex digits of the sha256 of its normalised question."""
    return sha256_bytes(normalise(question).encode("utf-8"))[:16]


def parse_trace(record: JsonObject, where: str) -> Trace:
    """Check a record of version 1.0 and create the trace; its id may not be unique yet.

    `where` (`file:line`) starts the message. Raises DataError naming the field and what was expected.
    """
    version = record.get("trace_version", VERSION)
    if version != VERSION:
        raise DataError(f"{where}: trace_version: {version!r}, expected {VERSION!r}")
    prompt, answer = text_field(record, "prompt", where), text_field(record, "final_answer", where)
    meta = meta_field(record, where)
    history = () if record.get("history") is None else conversation(record["history"], f"{where}: history")
    return identified(Trace("", prompt, _steps(record.get("steps"), where), answer, meta, history), record, where)


def conversation(said: Any, where: str, system: bool = False) -> tuple[Message, ...]:
    """Messages with `role` and `content`: user and assistant by turns, the user first. Raises DataError.

    With `system` a system message may precede them, and there must be at least one turn of each.
    """
    if not isinstance(said, list) or not all(isinstance(message, dict) for message in said):
        raise DataError(f"{where}: expected a list of objects with role and content")
    roles = [message.get("role") for message in said]
    turns = roles[1:] if system and roles[:1] == ["system"] else roles
    if turns != ["user", "assistant"] * (len(turns) // 2) or (system and not turns):
        rule = " (a system message may come first), ending with the assistant" if system else ", the user first"
        shown = ", ".join(map(str, roles[:6])) or "nothing"
        raise DataError(f"{where}: expected user and assistant by turns{rule}, got {shown}")
    texts = [text_field(message, "content", f"{where}[{place}]") for place, message in enumerate(said)]
    return tuple(map(Message, roles, texts))


def identified(trace: Trace, record: JsonObject, where: str) -> Trace:
    """The trace with its id: the record's `id`, else `meta.id`, else the question's own. Raises DataError."""
    if len(trace.history) > MAX_TURNS:
        raise DataError(f"{where}: {len(trace.history)} turns before the prompt, expected at most {MAX_TURNS}")
    given = trace.meta.get("id") if record.get("id") is None else record["id"]
    if given is None:
        given = prompt_id(trace.questions[-1])
    if not isinstance(given, str | int) or isinstance(given, bool) or given == "":
        raise DataError(f"{where}: id: expected text or an integer, got {_kind(given)}")
    return replace(trace, id=_valid_unicode(str(given), "id", where))


def meta_field(record: JsonObject, where: str) -> JsonObject:
    """The object in field `meta`, empty if there is none. Raises DataError."""
    meta = record.get("meta", {})
    if not isinstance(meta, dict):
        raise DataError(f"{where}: meta: expected an object, got {_kind(meta)}")
    try:
        _valid_unicode(to_json(meta), "meta", where)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: meta: not plain JSON ({error})") from None
    return meta


def text_field(record: JsonObject, name: str, where: str, longest: int = MAX_TEXT) -> str:
    """The text in field `name`, 1 to `longest` characters. Raises DataError."""
    if name not in record:
        raise DataError(f"{where}: {name}: missing (the record has {', '.join(sorted(record)) or 'no field'})")
    value = record[name]
    if not isinstance(value, str):
        raise DataError(f"{where}: {name}: expected text, got {_kind(value)}")
    if not 1 <= len(value) <= longest:
        raise DataError(f"{where}: {name}: {len(value)} characters, expected 1 to {longest}")
    return _valid_unicode(value, name, where)


def _valid_unicode(text: str, name: str, where: str) -> str:
    """Returns `text`. JSON can encode half a surrogate pair (`\\ud83d`), which no file can hold as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: {name}: half a surrogate pair at character {error.start}, not Unicode") from None
    return text


def _steps(value: Any, where: str) -> tuple[Step, ...]:
    if not isinstance(value, list):
        raise DataError(f"{where}: steps: expected a list, got {_kind(value)}")
    if len(value) > MAX_STEPS:
        raise DataError(f"{where}: steps: {len(value)} of them, expected at most {MAX_STEPS}")
    steps = sorted((_step(item, f"{where}: steps[{i}]") for i, item in enumerate(value)), key=lambda step: step.i)
    for step, following in pairwise(steps):
        if step.i == following.i:
            raise DataError(f"{where}: steps: index {step.i} occurs twice")
    return tuple(steps)


def _step(item: Any, where: str) -> Step:
    if not isinstance(item, dict):
        raise DataError(f"{where}: expected an object, got {_kind(item)}")
    index, kind = item.get("i"), item.get("type", "step")
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise DataError(f"{where}.i: expected an integer >= 0, got {index!r}")
    if not isinstance(kind, str) or not kind:
        raise DataError(f"{where}.type: expected text, got {kind!r}")
    return Step(index, kind, text_field(item, "content", where, MAX_STEP))


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true/false", type(None): "null"}
    return names.get(type(value), f"a number ({value!r})")
