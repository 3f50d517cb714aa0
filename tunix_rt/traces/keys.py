"""What of a trace is compared with others, in a few bytes: computed once, when it is read.

Digests of 16 bytes tell apart any number of texts that a disk holds. Runs of words are compared by Python's hash of 8
bytes, and where those agree by their text.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tunix_rt.traces.trace import GROUP, Trace, normalise

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese characters: scripts that put no blanks between words."""
WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
"""A word for the comparison of texts: what stands between blanks, and each character of a script without them."""
LEAST_GIVEN = 12
"""Characters of a final answer from which its occurrence in the prompt is no accident."""
SIZE = 49
"""Bytes of `Keys` in a record."""


class Keys(NamedTuple):
    """Digests of a trace's texts."""

    exact: bytes
    """Of everything the model is shown."""
    normal: bytes
    """Of the same after normalisation."""
    answer: bytes
    """Of the normalised final answer."""
    given_away: bool
    """Whether the final answer, if it is more than a short number or word, stands in the prompt as it is."""

    def packed(self) -> bytes:
        """`SIZE` bytes."""
        return self.exact + self.normal + self.answer + bytes([self.given_away])

    @classmethod
    def unpacked(cls, packed: bytes) -> Keys:
        """The inverse of `packed`."""
        return cls(packed[:16], packed[16:32], packed[32:48], bool(packed[48]))


def keys_of(trace: Trace) -> Keys:
    """The keys of a trace."""
    asked, answer = trace.asked, normalise(trace.final_answer)
    given = len(answer) >= LEAST_GIVEN and answer in normalise(trace.prompt)
    return Keys(sha256(asked), sha256(normalise(asked)), sha256(answer), given)


def sha256(text: str) -> bytes:
    """Half of the digest of a text: enough to tell apart any number of texts that a disk holds."""
    return hashlib.sha256(text.encode()).digest()[:16]


class Fingerprints(NamedTuple):
    """Hashes of the texts of a trace that are compared between splits."""

    questions: int
    """How many there are of whole questions, which come first; the trace's own is the last of them."""
    hashes: array[int]
    """8 bytes each: of every normalised question, then of every run of words of the last."""


def fingerprints(trace: Trace, ngram: int) -> Fingerprints:
    """The hashes of `texts`."""
    return Fingerprints(len(trace.questions), array("q", map(hash, texts(trace.questions, ngram))))


def texts(questions: Sequence[str], ngram: int) -> Iterator[str]:
    """Each normalised question, then every run of `ngram` words of the last, which contains the earlier ones."""
    normal = [normalise(question) for question in questions]
    yield from normal
    words = [word.span() for word in WORD.finditer(normal[-1])]
    for (start, _), (_, end) in zip(words, words[ngram - 1 :], strict=False):
        yield normal[-1][start:end]


def group_hash(trace: Trace, seed: int) -> int:
    """64 bits that decide the split of a trace and its place in it: of `meta.group`, else of its first prompt."""
    group = trace.meta.get(GROUP)
    return hash_of(f"prompt:{normalise(trace.questions[0])}" if group is None else f"group:{group}", seed)


def hash_of(key: str, seed: int) -> int:
    """64 bits of a text and a seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big")
