"""A reasoning trace (messages → completion with labelled steps and answer), its rules, and its JSON form, 1.1.

What a source has as text is kept verbatim: `completion` is what the model learns to write, and steps and final answer
are spans of it. A source that gives only parts (generated arithmetic, a trace of version 1.0) has no completion: a
`format` renders its parts.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject, sha256_bytes, to_json

VERSION = "1.1"
READABLE = ("1.0", VERSION)
MIXED = "dataset"
"""Key of `meta` that names a trace's source in a mixture."""
MAX_STEPS = 1_000
"""Most steps of a trace of parts: formats that number steps are proved to be readable up to here."""
GROUP = "group"
"""Key of `meta`: traces of one group are never in two splits."""
EMPTY = ("system", "developer", "tool")
"""Roles whose message may be empty."""
CONTEXT = ("system", "developer", "user", "tool")
"""Roles whose text is shown to the model and never learned."""
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its index (unique in the trace, ≥ 0), a free type (`setup`, `calculation`, …), its text."""

    i: int
    type: str
    content: str
    span: Span | None = None
    """[start, end) in the completion, in characters; None if the source gave only parts."""

    def to_json(self) -> JsonObject:
        """The step as written to a record."""
        own = {"i": self.i, "type": self.type, "content": self.content}
        return own if self.span is None else own | {"span": list(self.span)}


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, verbatim."""

    role: str
    content: str
    fields: JsonObject = field(default_factory=dict)
    """What else the chat template is shown: `tool_calls`, `name`, `tool_call_id`, `reasoning_content`."""
    weight: float | None = None
    """The declared weight of an assistant's message as a target; None: that of `dataset.loss_weights`."""

    def shown(self) -> JsonObject:
        """The message as a chat template receives it."""
        return {"role": self.role, "content": self.content} | self.fields

    def to_json(self) -> JsonObject:
        """The message as written to a record."""
        return self.shown() | ({} if self.weight is None else {"weight": self.weight})


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another completion of a trace's prompt: text as it stands, or steps and answer that a format renders."""

    completion: Message | None = None
    steps: tuple[Step, ...] = ()
    final_answer: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """What is written in it: the text as it stands, or the parts."""
        if self.completion is not None:
            return (self.completion.content,)
        return (*(step.content for step in self.steps), self.final_answer)

    def to_json(self) -> JsonObject | str:
        """As written to a record."""
        if self.completion is not None:
            return _completion_json(self.completion)
        return {"steps": [step.to_json() for step in self.steps], "final_answer": self.final_answer}


@dataclass(frozen=True, slots=True)
class Trace:
    """One item of a dataset. `steps` are in order of index; empty for an answer-only item."""

    id: str
    prompt: str
    """The last message of the user before the completion."""
    steps: tuple[Step, ...]
    final_answer: str
    meta: JsonObject = field(default_factory=dict)
    messages: tuple[Message, ...] = ()
    """Everything before the completion; empty if that is the prompt alone."""
    completion: Message | None = None
    """What the assistant writes, verbatim; None: a format renders steps and answer."""
    tools: tuple[JsonObject, ...] = ()
    """JSON schemas of the tools that the model may call."""
    answer_span: Span | None = None
    """Where `final_answer` stands in the completion."""
    rejected: Alternative | None = None
    """The worse completion of a pair, of which the trace's own is the better one."""

    @property
    def own(self) -> Alternative:
        """Its own completion."""
        return Alternative(self.completion, self.steps, self.final_answer)

    @property
    def loser(self) -> Trace:
        """The trace with its rejected completion in the place of its own. There must be one."""
        assert self.rejected is not None
        other = self.rejected
        return replace(
            self,
            steps=other.steps,
            final_answer=other.final_answer,
            completion=other.completion,
            answer_span=None,
            rejected=None,
        )

    @property
    def conversation(self) -> tuple[Message, ...]:
        """The messages before the completion; at least one."""
        return self.messages or (Message("user", self.prompt),)

    @property
    def questions(self) -> tuple[str, ...]:
        """What was asked at each turn of the user, with the conversation before it; the trace's own is last.

        Without system messages and tools: the same question under another system prompt is still the same question.
        """
        said = [message for message in self.conversation if message.role not in ("system", "developer")]
        turns = [place for place, message in enumerate(said) if message.role == "user"][:-1]
        joined = ["\n".join(message.content for message in said[: place + 1]) for place in turns]
        return (*joined, "\n".join(message.content for message in said))

    @property
    def asked(self) -> str:
        """Everything the model is shown, as one text: what makes a prompt occur twice."""
        instructions = [m.content for m in self.conversation if m.role in ("system", "developer")]
        return "\n".join([*instructions, *map(to_json, self.tools), self.questions[-1]])

    def to_json(self) -> JsonObject:
        """The record as written to a JSONL file; fields that say nothing are left out."""
        given: dict[str, Any] = {
            "messages": [message.to_json() for message in self.messages],
            "tools": list(self.tools),
            "completion": None if self.completion is None else _completion_json(self.completion),
            "answer_span": None if self.answer_span is None else list(self.answer_span),
            "rejected": None if self.rejected is None else self.rejected.to_json(),
        }
        return {
            "trace_version": VERSION,
            "id": self.id,
            "prompt": self.prompt,
            "steps": [step.to_json() for step in self.steps],
            "final_answer": self.final_answer,
            "meta": self.meta,
            **{name: value for name, value in given.items() if value not in (None, [])},
        }


def _completion_json(message: Message) -> JsonObject | str:
    whole = message.to_json()
    del whole["role"]
    return whole if len(whole) > 1 else message.content


def normalise(text: str) -> str:
    """NFKC, case folded, white space collapsed. Operators stay: `1 + 1` is not `1 - 1`."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def prompt_id(question: str) -> str:
    """The id of a trace without its own id: 16 hex digits of the sha256 of its normalised question."""
    return sha256_bytes(normalise(question).encode("utf-8"))[:16]


def message_of(record: Mapping[str, Any], where: str) -> Message:
    """A message of a record: role, content, weight; every other field is one that the template is shown."""
    role, weight = record.get("role"), record.get("weight")
    if not isinstance(role, str) or not role:
        raise DataError(f"{where}: role: expected text, got {kind_of(role)}")
    if weight is not None and (
        isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 100
    ):
        raise DataError(f"{where}: weight: expected a number from 0 to 100, got {weight!r}")
    content = text_field(record, "content", where, empty=bool(record.get("tool_calls")) or role in EMPTY)
    fields = {name: value for name, value in record.items() if name not in ("role", "content", "weight")}
    valid_unicode(to_json(fields), "message", where)
    return Message(role, content, fields, None if weight is None else float(weight))


def objects(value: Any, where: str) -> tuple[JsonObject, ...]:
    """A list of objects; None is an empty one. Raises DataError."""
    if value is None:
        return ()
    wrong = [item for item in value if not isinstance(item, dict)] if isinstance(value, list) else [value]
    if wrong:
        among = " in it" if isinstance(value, list) else ""
        raise DataError(f"{where}: expected a list of objects, got {kind_of(wrong[0])}{among}")
    return tuple(value)


def identified(trace: Trace, record: Mapping[str, Any], where: str) -> Trace:
    """The trace with its id: the record's `id`, else `meta.id`, else the question's own. Raises DataError."""
    given = next((name for name in map(_name, (record.get("id"), trace.meta.get("id"))) if name), None)
    return replace(trace, id=valid_unicode(given or prompt_id(trace.questions[-1]), "id", where))


def _name(value: Any) -> str:
    """An id as text: `3` for 3.0, the own text of MongoDB's `{"$oid": …}`; empty if there is none."""
    if isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return to_json(finite(value))


def meta_field(record: Mapping[str, Any], where: str) -> JsonObject:
    """What field `meta` holds; a value that is no object is kept under the name `meta`. Raises DataError."""
    given = finite(record.get("meta"))
    meta = given if isinstance(given, dict) else {} if given is None else {"meta": given}
    try:
        valid_unicode(to_json(meta), "meta", where)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: meta: not plain JSON ({error})") from None
    return meta


def finite(value: Any) -> Any:
    """A value that is not learned, as JSON has it: NaN of a table's empty cell is null, bytes are their number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list) else value


def text_field(record: Mapping[str, Any], name: str, where: str, empty: bool = False) -> str:
    """The text in field `name`; at least one character unless it may be `empty`. Raises DataError."""
    if name not in record:
        raise DataError(f"{where}: {name}: missing (the record has {', '.join(sorted(record)) or 'no field'})")
    value = record[name]
    if not isinstance(value, str):
        remedy = ", which can be written in several ways: give it as text" if isinstance(value, float) else ""
        raise DataError(f"{where}: {name}: expected text, got {kind_of(value)}{remedy}")
    if not value and not empty:
        raise DataError(f"{where}: {name}: 0 characters, expected at least 1")
    return valid_unicode(value, name, where)


def valid_unicode(text: str, name: str, where: str) -> str:
    """Returns `text`. JSON can encode half a surrogate pair (`\\ud83d`), which no file can hold as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: {name}: half a surrogate pair at character {error.start}, not Unicode") from None
    return text


def kind_of(value: Any) -> str:
    """What a JSON value is, for a message."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true/false", type(None): "null"}
    if isinstance(value, bytes):
        return "bytes that are not UTF-8 text"
    return names.get(type(value), f"a number ({value!r})")
