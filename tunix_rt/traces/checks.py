"""Duplicates within a split, and prompts that training shares with evaluation; `dataset.py` handles them."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tunix_rt.traces.sources import AnyRecord
from tunix_rt.traces.trace import normalise

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese characters: scripts that put no blanks between words."""
WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
"""A word for the comparison of texts: what stands between blanks, and each character of a script without them."""
COMMON = 10
"""A run of words that more training records have says nothing about any of them."""


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
    first: dict[bytes, int] = {}
    found = {}
    for position, record in enumerate(records):
        asked = record.trace.asked
        earlier = first.setdefault(sha256(asked if exact else normalise(asked)), position)
        if earlier != position:
            found[position] = earlier
    return found


def sha256(text: str) -> bytes:
    """Half of the digest of a text: enough to tell apart any number of texts that a disk holds."""
    return hashlib.sha256(text.encode()).digest()[:16]


def find_overlaps(training: Sequence[AnyRecord], evaluation: Sequence[AnyRecord], ngram: int) -> list[Overlap]:
    """Training records whose normalised prompt equals one of evaluation or shares `ngram` words in a row.

    Every turn of a training conversation is compared. 13 words are the contamination test of Brown et al. 2020 (arXiv
    2005.14165, appendix C), which also passes over runs that occur in more than 10 documents: what all rows share, a
    preamble, says nothing about any of them. Runs that every evaluation record has are passed over too.
    """
    index: dict[str, list[int]] = {}
    for position, record in enumerate(evaluation):
        for text in set(_fingerprints(record.trace.questions[-1:], ngram)):
            index.setdefault(text, []).append(position)
    shared: dict[int, list[str]] = {}
    equal: set[str] = set()
    for position, record in enumerate(training):
        questions = record.trace.questions
        if texts := [text for text in _fingerprints(questions, ngram) if text in index]:
            shared[position] = texts
            equal.update(text for text in map(normalise, questions) if text in index)
    common = {
        text for text, count in Counter(t for texts in shared.values() for t in set(texts)).items() if count > COMMON
    }
    common |= {text for text, found in index.items() if len(found) == len(evaluation) > 1}
    common -= equal
    overlaps = []
    for position, texts in shared.items():
        telling = [text for text in texts if text not in common]
        if telling:
            involved = sorted({other for text in telling for other in index[text]})
            overlaps.append(Overlap(position, tuple(involved), telling[0]))
    return overlaps


def _fingerprints(questions: Sequence[str], ngram: int) -> Iterator[str]:
    """Each normalised question, then every run of `ngram` words of the last, which contains the earlier ones."""
    texts = [normalise(question) for question in questions]
    yield from texts
    words = [word.span() for word in WORD.finditer(texts[-1])]
    for (start, _), (_, end) in zip(words, words[ngram - 1 :], strict=False):
        yield texts[-1][start:end]
