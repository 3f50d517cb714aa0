"""Duplicates within a split, and prompts that training shares with evaluation; `dataset.py` handles them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tunix_rt.traces.keys import texts
from tunix_rt.traces.sources import AnyRecord

COMMON = 10
"""A run of words that more training records have says nothing about any of them."""
AT_ONCE = 4096
"""Training records that are looked up together."""
Integers = np.ndarray[Any, np.dtype[np.int64]]


class Overlap(NamedTuple):
    """A training record (by position) that shares a prompt, or a run of words, with evaluation records."""

    position: int
    evaluation: tuple[int, ...]
    """Positions of the evaluation records, ascending."""
    shared: str
    """The first shared text found: the whole normalised prompt, or the run of words."""


def find_duplicates(records: Sequence[AnyRecord], exact: bool) -> dict[int, int]:
    """Position of each record whose prompt, with the conversation before it, occurred earlier → where it did first.

    Compared character by character (`exact`), or after normalisation.
    """
    digests = bytearray()
    for record in records:
        digests += record.keys.exact if exact else record.keys.normal
    _, first, which = np.unique(np.frombuffer(digests, dtype="S16"), return_index=True, return_inverse=True)
    earlier = first[which]
    return {int(position): int(earlier[position]) for position in np.flatnonzero(earlier != np.arange(len(records)))}


class _Index:
    """The texts of evaluation records, by their hashes: 20 bytes for each."""

    def __init__(self, evaluation: Sequence[AnyRecord], ngram: int) -> None:
        hashes, owners = array("q"), array("i")
        for position, record in enumerate(evaluation):
            found = record.fingerprints(ngram)
            own = set(found.hashes[found.questions - 1 :])
            hashes.extend(own)
            owners.extend([position] * len(own))
        order = np.argsort(np.frombuffer(hashes, np.int64), kind="stable").astype(np.int32)
        self._owners = np.frombuffer(owners, np.int32)[order]
        ordered = np.frombuffer(hashes, np.int64)[order]
        self._starts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1)).astype(np.int32)
        self.keys = ordered[self._starts]
        self.counts = np.diff(self._starts, append=len(ordered))

    def find(self, hashes: Integers) -> Integers:
        """The place of each hash in `keys`, −1 for one that is not there."""
        if not len(self.keys):
            return np.full(len(hashes), -1, np.int64)
        places = np.minimum(np.searchsorted(self.keys, hashes), len(self.keys) - 1)
        return np.where(self.keys[places] == hashes, places, -1)

    def owners(self, place: int) -> list[int]:
        """Positions of the evaluation records with a text, ascending."""
        start = self._starts[place]
        return sorted(self._owners[start : start + self.counts[place]].tolist())


def find_overlaps(training: Sequence[AnyRecord], evaluation: Sequence[AnyRecord], ngram: int) -> list[Overlap]:
    """Training records whose normalised prompt equals one of evaluation or shares `ngram` words in a row.

    Every turn of a training conversation is compared. 13 words are the contamination test of Brown et al. 2020 (arXiv
    2005.14165, appendix C), which also passes over runs that occur in more than 10 documents: what all rows share, a
    preamble, says nothing about any of them. Runs that every evaluation record has are passed over too.
    """
    index = _Index(evaluation, ngram)
    positions, places, equal = _hits(training, index, ngram)
    common = np.bincount(places, minlength=len(index.keys)) > COMMON
    if len(evaluation) > 1:
        common |= index.counts == len(evaluation)
    common[places[equal]] = False
    telling = ~common[places]
    positions, places = positions[telling], places[telling]
    starts = np.flatnonzero(np.diff(positions, prepend=-1))
    groups = zip(positions[starts].tolist(), np.split(places, starts[1:]), strict=True) if len(starts) else ()
    found = (_overlap(position, training[position], some, index, evaluation, ngram) for position, some in groups)
    return [overlap for overlap in found if overlap is not None]


def _hits(training: Sequence[AnyRecord], index: _Index, ngram: int) -> tuple[Integers, Integers, Any]:
    """(position, place in the index, whether it is a whole question) of each text that both sides have, once each."""
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool))]
    for first in range(0, len(training), AT_ONCE):
        some = [record.fingerprints(ngram) for record in training[first : first + AT_ONCE]]
        lengths = [len(found.hashes) for found in some]
        owners = np.repeat(np.arange(first, first + len(some)), lengths)
        asked = np.concatenate([np.arange(len(found.hashes)) < found.questions for found in some])
        places = index.find(np.concatenate([np.frombuffer(found.hashes, np.int64) for found in some]))
        there = places >= 0
        rows = np.unique(np.stack([owners, places, ~asked])[:, there], axis=1)
        _, once = np.unique(rows[:2], axis=1, return_index=True)
        parts.append((rows[0, once], rows[1, once], rows[2, once] == 0))
    positions, places, equal = (np.concatenate(column) for column in zip(*parts, strict=True))
    return positions, places, equal


def _overlap(
    position: int, record: AnyRecord, places: Integers, index: _Index, evaluation: Sequence[AnyRecord], ngram: int
) -> Overlap | None:
    """The overlap of a record that shares hashes, if the texts are equal too."""
    shared = {int(index.keys[place]): index.owners(int(place)) for place in places}
    involved: set[int] = set()
    first = None
    for text in texts(record.trace.questions, ngram):
        for other in shared.pop(hash(text), ()):
            if text in texts(evaluation[other].trace.questions[-1:], ngram):
                involved.add(other)
                first = text if first is None else first
    return None if first is None else Overlap(position, tuple(sorted(involved)), first)
