"""Duplicates within a split, and prompts that training shares with evaluation; `dataset.py` handles them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tunix_rt.traces.sources import Record
from tunix_rt.traces.trace import normalise


class Overlap(NamedTuple):
    """A training record (by position) that shares a prompt, or a run of words, with evaluation records."""

    position: int
    evaluation: tuple[int, ...]
    """Positions of the evaluation records, ascending."""
    shared: str
    """The first shared text found: the whole normalised prompt, or the run of words."""


def find_duplicates(records: Sequence[Record], exact: bool) -> dict[int, int]:
    """Position of each record whose prompt, with the conversation before it, occurred earlier → where it did first.

    Compared character by character (`exact`), or after normalisation.
    """
    questions = [record.trace.asked for record in records]
    prompts = questions if exact else [normalise(question) for question in questions]
    first: dict[str, int] = {}
    earlier = [first.setdefault(prompt, position) for position, prompt in enumerate(prompts)]
    return {position: found for position, found in enumerate(earlier) if found != position}


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
