"""What a person's files hold, before any model is chosen: shape, roles, lengths, repeats, and what cannot be read."""

from __future__ import annotations

import hashlib
import random
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tunix_rt.config.choices import Adapter
from tunix_rt.errors import DataError
from tunix_rt.traces.adapters import adapt, detect
from tunix_rt.traces.data_files import Columns
from tunix_rt.traces.dataset import share_of
from tunix_rt.traces.json_files import Line
from tunix_rt.traces.messages import Rules
from tunix_rt.traces.readers import TAGS
from tunix_rt.traces.trace import Trace, normalise

QUESTIONS = ("question", "query", "input", "problem", "instruction", "text", "prompt", "source")
ANSWERS = ("completion", "response", "output", "solution", "answer", "target", "reply", "label")
"""Names of columns that are often a prompt and what answers it, in the order in which they are taken."""
KEPT = 2000
"""Traces that are kept for tokenising, drawn from all; of the others only counts."""
NAMED = 20
"""Reasons of invalid records that are kept."""


@dataclass(slots=True)
class Found:
    """What the records are, in numbers."""

    adapter: Adapter
    columns: dict[str, str]
    rules: Rules
    rows: int = 0
    num_invalid: int = 0
    """Records that are not valid traces."""
    invalid: list[str] = field(default_factory=list)
    """The first `NAMED` reasons."""
    roles: Counter[str] = field(default_factory=Counter)
    features: Counter[str] = field(default_factory=Counter)
    """Traces that have thoughts, a system message, tools, several turns, weights, no text."""
    repeated: int = 0
    """Traces whose prompt occurred before."""
    shares: array[float] = field(default_factory=lambda: array("d"))
    """Where each trace stands among all by its hash (`dataset.share_of`), which decides its split."""
    longest: int = 0
    """Characters of the longest trace."""
    sample: list[tuple[str, Trace]] = field(default_factory=list)
    """(place, trace) of `KEPT` traces, drawn with a fixed seed, in the order of the file."""


def look(lines: Iterable[Line], columns: Mapping[str, str]) -> Found:
    """Read all records. Raises DataError if the first has no known shape, naming its fields."""
    found: Found | None = None
    seen: set[bytes] = set()
    drawn, renaming = Reservoir(), Columns(columns)
    for where, value in lines:
        if found is None and not isinstance(value, DataError):
            named = dict(columns) or guessed(value)
            renaming = Columns(named)
            adapter = detect(renaming.rename(value), where)
            rules = Rules(consecutive="join", last_user="drop")
            found = Found(adapter, named, rules)
        if found is None:
            raise value if isinstance(value, DataError) else DataError(f"{where}: not a record")
        found.rows += 1
        try:
            if isinstance(value, DataError):
                raise value
            trace = adapt(renaming.rename(value), found.adapter, where, found.rules)
            _count(found, trace, seen)
            drawn.offer(where, trace)
        except DataError as error:
            found.num_invalid += 1
            found.invalid += [str(error)][: NAMED - len(found.invalid)]
    if found is None:
        raise DataError("no records")
    renaming.check("--columns")
    found.sample = drawn.taken
    return found


class Reservoir:
    """A sample of equal chances of a stream of unknown length (Vitter 1985, algorithm R), the same at every call."""

    def __init__(self) -> None:
        self._random, self._seen = random.Random(0), 0  # noqa: S311  # no secret
        self._kept: list[tuple[int, str, Trace]] = []

    def offer(self, where: str, trace: Trace) -> None:
        """Take the trace in, perhaps in the place of an earlier one."""
        place = len(self._kept) if self._seen < KEPT else self._random.randrange(self._seen + 1)
        if place < KEPT:
            self._kept[place : place + 1] = [(self._seen, where, trace)]
        self._seen += 1

    @property
    def taken(self) -> list[tuple[str, Trace]]:
        """(place, trace) of the sample, in the order in which they came."""
        return [(where, trace) for _, where, trace in sorted(self._kept, key=lambda item: item[0])]


def guessed(record: Mapping[str, object]) -> dict[str, str]:
    """Columns that look like a prompt and its answer, for a record of no known shape; else none."""
    try:
        detect(record, "")
    except DataError:
        prompt = next((name for name in QUESTIONS if isinstance(record.get(name), str)), None)
        completion = next((name for name in ANSWERS if isinstance(record.get(name), str) and name != prompt), None)
        if prompt is not None and completion is not None:
            return {"prompt": prompt, "completion": completion}
    return {}


def _count(found: Found, trace: Trace, seen: set[bytes]) -> None:
    found.roles.update(message.role for message in trace.conversation)
    found.features.update(_features(trace))
    written = len(trace.completion.content) if trace.completion else sum(len(step.content) for step in trace.steps)
    found.longest = max(found.longest, len(trace.asked) + written)
    key = hashlib.sha256(normalise(trace.asked).encode()).digest()[:16]
    found.repeated += key in seen
    seen.add(key)
    found.shares.append(share_of(trace, 0))


def _features(trace: Trace) -> Iterator[str]:
    text = "" if trace.completion is None else trace.completion.content
    said = [*trace.conversation, *([trace.completion] if trace.completion else [])]
    if any(closing in text for _, closing in TAGS):
        yield "with thoughts"
    if any(message.role in ("system", "developer") for message in said):
        yield "with a system message"
    if trace.tools or any("tool_calls" in message.fields for message in said):
        yield "with tools"
    if sum(message.role == "user" for message in said) > 1:
        yield "with several turns"
    if any(message.weight is not None for message in said):
        yield "with weights of messages"
