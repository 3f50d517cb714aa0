"""Duplicates within a split, and prompts that training shares with evaluation.

In: records with their places. Out: findings, by position. `dataset.py` decides how to handle them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunix_rt.traces.sources import Record
from tunix_rt.traces.trace import normalise


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The record at `position` repeats the prompt of the one at `first`."""

    position: int
    first: int


@dataclass(frozen=True, slots=True)
class Overlap:
    """The training record at `position` shares a prompt, or a run of words, with evaluation records."""

    position: int
    evaluation: tuple[int, ...]
    """Positions of the evaluation records, ascending."""
    shared: str
    """The first shared text found: the whole normalised prompt, or the run of words."""


def find_duplicates(records: Sequence[Record], exact: bool) -> list[Duplicate]:
    """Records whose prompt, with the conversation before it, occurred earlier.

    Compared character by character (`exact`), or after normalisation.
    """
    first: dict[str, int] = {}
    found = []
    for position, record in enumerate(records):
        question = record.trace.questions[-1]
        prompt = question if exact else normalise(question)
        earlier = first.setdefault(prompt, position)
        if earlier != position:
            found.append(Duplicate(position, earlier))
    return found


def find_overlaps(training: Sequence[Record], evaluation: Sequence[Record], ngram: int) -> list[Overlap]:
    """Training records whose normalised prompt equals one of evaluation or shares `ngram` words in a row.

    Every turn of a training conversation is compared. Words are separated by white space. 13 words are the
    contamination test of Brown et al. 2020 (arXiv 2005.14165, appendix C).
    """
    index: dict[str, list[int]] = {}
    for position, record in enumerate(evaluation):
        for text in set(_fingerprints(record.trace.questions[-1:], ngram)):
            index.setdefault(text, []).append(position)
    found = []
    for position, record in enumerate(training):
        shared = [text for text in _fingerprints(record.trace.questions, ngram) if text in index]
        if shared:
            involved = sorted({other for text in shared for other in index[text]})
            found.append(Overlap(position, tuple(involved), shared[0]))
    return found


def _fingerprints(questions: Sequence[str], ngram: int) -> Iterator[str]:
    """Each normalised question, then every run of `ngram` words of the last, which contains the earlier ones."""
    texts = [normalise(question) for question in questions]
    yield from texts
    words = texts[-1].split(" ")
    for begin in range(len(words) - ngram + 1):
        yield " ".join(words[begin : begin + ngram])
