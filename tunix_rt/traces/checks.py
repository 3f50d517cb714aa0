"""Duplicates within a split, and prompts that training shares with evaluation; `dataset.py` handles them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from tunix_rt.traces.keys import texts
from tunix_rt.traces.sources import AnyRecord

COMMON = 10
"""A run of words that more training records have says nothing about any of them."""
AT_ONCE = 1024
"""Training records that are looked up together."""
REMEMBERED = 32_768
"""Evaluation questions that stay in memory, since many training records share words with one."""
Integers = np.ndarray[Any, np.dtype[np.int64]]
Booleans = np.ndarray[Any, np.dtype[np.bool_]]


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
    preamble, says nothing about any of them. Runs that every evaluation record has are passed over too, and so are runs
    with words of such a run: of a preamble and a word behind it, the word alone would tell something.
    """
    index = _Index(evaluation, ngram)

    @lru_cache(REMEMBERED)
    def asked(place: int) -> tuple[str, ...]:
        return evaluation[place].trace.questions[-1:]

    common = _common(training, index, len(evaluation), ngram)
    telling = [np.zeros((2, 0), np.int64)]
    for positions, places, _ in _hits(training, index, ngram):
        telling.append(np.stack([positions, places])[:, ~common[places]])
    positions, places = np.concatenate(telling, axis=1)
    starts = np.flatnonzero(np.diff(positions, prepend=-1))
    groups = zip(positions[starts].tolist(), np.split(places, starts[1:]), strict=True) if len(starts) else ()
    found = (
        _overlap(position, training[position], set(some.tolist()), common, index, asked, ngram)
        for position, some in groups
    )
    return [overlap for overlap in found if overlap is not None]


def _common(training: Sequence[AnyRecord], index: _Index, num_evaluation: int, ngram: int) -> Booleans:
    """Whether a text of the index says nothing, since many records have it; one that is a whole question does."""
    counts, equal = np.zeros(len(index.keys), np.int64), np.zeros(len(index.keys), bool)
    for _, places, asked in _hits(training, index, ngram):
        counts += np.bincount(places, minlength=len(counts))
        equal[places[asked]] = True
    everywhere = (index.counts == num_evaluation) & (num_evaluation > 1)
    common: Booleans = ((counts > COMMON) | everywhere) & ~equal
    return common


def _hits(training: Sequence[AnyRecord], index: _Index, ngram: int) -> Iterator[tuple[Integers, Integers, Booleans]]:
    """(position, place in the index, whether it is a whole question) of each text that both sides have, once each."""
    for first in range(0, len(training), AT_ONCE):
        some = [record.fingerprints(ngram) for record in training[first : first + AT_ONCE]]
        owners = np.repeat(np.arange(first, first + len(some)), [len(found.hashes) for found in some])
        asked = np.concatenate([np.arange(len(found.hashes)) < found.questions for found in some])
        places = index.find(np.concatenate([np.frombuffer(found.hashes, np.int64) for found in some]))
        there = places >= 0
        number = max(1, len(index.keys))
        pairs, which = np.unique(owners[there] * number + places[there], return_inverse=True)
        whole = np.zeros(len(pairs), bool)
        whole[which[asked[there]]] = True
        yield pairs // number, pairs % number, whole


def _overlap(
    position: int,
    record: AnyRecord,
    telling: set[int],
    common: Booleans,
    index: _Index,
    asked: Callable[[int], Sequence[str]],
    ngram: int,
) -> Overlap | None:
    """The overlap of a record that shares hashes, if the texts are equal too and not part of what many share."""
    prints = record.fingerprints(ngram)
    places = index.find(np.frombuffer(prints.hashes, np.int64))
    usual = (places >= 0) & common[places] if len(common) else places >= 0
    covered = _touched(usual[prints.questions :], ngram)
    involved: set[int] = set()
    first = None
    for number, text in enumerate(texts(record.trace.questions, ngram)):
        run = number - prints.questions
        if places[number] not in telling or (run >= 0 and covered[run]):
            continue
        owners = [other for other in index.owners(int(places[number])) if text in texts(asked(other), ngram)]
        involved.update(owners)
        first = text if first is None and owners else first
    return None if first is None else Overlap(position, tuple(sorted(involved)), first)


def _touched(runs: Booleans, ngram: int) -> Booleans:
    """Whether each run of `ngram` words has a word of one of `runs`."""
    sums, places = np.concatenate([[0], np.cumsum(runs)]), np.arange(len(runs))
    touched: Booleans = sums[np.minimum(places + ngram, len(runs))] > sums[np.maximum(places - ngram + 1, 0)]
    return touched
