"""What a person's files hold, before any model is chosen: shape, roles, lengths, repeats, and what cannot be read."""

from __future__ import annotations

import hashlib
import random
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice

from tunix_rt.config.choices import Adapter, SplitName
from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject
from tunix_rt.traces.adapters import adapt
from tunix_rt.traces.data_files import Columns
from tunix_rt.traces.dataset import share_of
from tunix_rt.traces.guess import guessed
from tunix_rt.traces.json_files import Line
from tunix_rt.traces.messages import Rules
from tunix_rt.traces.readers import TAGS
from tunix_rt.traces.shapes import detect
from tunix_rt.traces.trace import GROUP, Trace, normalise

KEPT = 2000
"""Traces that are kept for tokenising, drawn from all; of the others only counts."""
HEAD = 200
"""First records of a split that decide under which names the fields are."""
NAMED = 20
"""Reasons of invalid records that are kept."""


@dataclass(slots=True)
class Looked:
    """What the records of one split are."""

    columns: dict[str, str]
    """Field of the adapter → column of the file."""
    rows: int = 0
    shapes: Counter[Adapter] = field(default_factory=Counter)
    """How many valid records have each."""

    @property
    def adapter(self) -> Adapter:
        """The shape, if all have the same."""
        return next(iter(self.shapes)) if len(self.shapes) == 1 else "auto"


@dataclass(slots=True)
class Found:
    """What the records are, in numbers."""

    rules: Rules
    splits: dict[SplitName, Looked] = field(default_factory=dict)
    num_invalid: int = 0
    """Records that are not valid traces."""
    invalid: list[str] = field(default_factory=list)
    """The first `NAMED` reasons."""
    roles: Counter[str] = field(default_factory=Counter)
    features: Counter[str] = field(default_factory=Counter)
    """Traces that have thoughts, a system message, tools, several turns, weights, no text."""
    repeated: int = 0
    """Traces whose prompt occurred before in the same split."""
    shares: array[float] = field(default_factory=lambda: array("d"))
    """Where each trace of `train` with a new prompt stands among all by its hash (`dataset.share_of`): its split."""
    longest: int = 0
    """Characters of the longest trace."""
    sample: list[tuple[str, Trace]] = field(default_factory=list)
    """(place, trace) of `KEPT` traces, drawn with a fixed seed, in the order of the files."""

    @property
    def rows(self) -> int:
        """Records of all splits."""
        return sum(looked.rows for looked in self.splits.values())

    @property
    def num_valid(self) -> int:
        """Traces of all splits."""
        return self.rows - self.num_invalid

    @property
    def adapter(self) -> Adapter:
        """The shape of the records, if all have the same."""
        return Looked({}, shapes=self.shapes).adapter

    @property
    def shapes(self) -> Counter[Adapter]:
        """How many valid records of all splits have each shape."""
        return sum((looked.shapes for looked in self.splits.values()), Counter[Adapter]())

    @property
    def sources(self) -> dict[SplitName, Looked]:
        """The splits that have valid records (a test set that is published without answers has none)."""
        return {split: looked for split, looked in self.splits.items() if looked.shapes}

    @property
    def columns(self) -> dict[str, str]:
        """Those of the training records."""
        return self.splits["train"].columns


def look(
    splits: Mapping[SplitName, Iterable[Line]], columns: Mapping[str, str], noted: Counter[str] | None = None
) -> Found:
    """Read all records of each split. `noted` already counts what reading them changes.

    Raises DataError if there are none, or none has a declared column.
    """
    found = Found(Rules(consecutive="join", last_user="drop", noted=Counter() if noted is None else noted))
    drawn, named = Reservoir(), dict(columns)
    for split, lines in splits.items():
        stream = iter(lines)
        head = list(islice(stream, HEAD))
        if split == "train" and named.keys() <= {GROUP, "id"}:
            named = guessed([value for _, value in head if not isinstance(value, DataError)]) | named
        renaming = Columns(named, "--columns")
        looked = found.splits[split] = Looked(named)
        seen: set[bytes] = set()
        for where, value in chain(head, stream):
            looked.rows += 1
            try:
                trace = _trace(value, renaming, looked, where, found.rules)
                _count(found, trace, seen, split)
                drawn.offer(where, trace)
            except DataError as error:
                found.num_invalid += 1
                found.invalid += [str(error)][: NAMED - len(found.invalid)]
        if split == "train":
            renaming.check()
        looked.columns = renaming.used
    if not found.rows:
        raise DataError("no records")
    found.sample = drawn.taken
    return found


def _trace(value: JsonObject | DataError, renaming: Columns, looked: Looked, where: str, rules: Rules) -> Trace:
    if isinstance(value, DataError):
        raise value
    record = renaming.rename(value)
    shape = detect(record, where)
    trace = adapt(record, shape, where, rules)
    looked.shapes[shape] += 1
    return trace


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


def _count(found: Found, trace: Trace, seen: set[bytes], split: SplitName) -> None:
    found.roles.update(message.role for message in trace.conversation)
    found.features.update(_features(trace))
    written = len(trace.completion.content) if trace.completion else sum(len(step.content) for step in trace.steps)
    found.longest = max(found.longest, len(trace.asked) + written)
    key = hashlib.sha256(normalise(trace.asked).encode()).digest()[:16]
    if key in seen:
        found.repeated += 1
    elif split == "train":
        found.shares.append(share_of(trace, 0))
    seen.add(key)


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
