"""Prompts that are almost equal, by MinHash over runs of characters, with the library `datasketch`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunix_rt.traces.keys import sha256
from tunix_rt.traces.sources import AnyRecord
from tunix_rt.traces.trace import normalise

if TYPE_CHECKING:
    from datasketch import MinHash

SHINGLE = 5
"""Characters of the runs that are compared: words of any script, and their order."""
PERMUTATIONS = 128
"""Of a MinHash (Broder 1997); the standard error of an estimated similarity is about 1 / sqrt(128)."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two records with similar prompts; `similarity` is the estimated Jaccard index of their runs of characters."""

    record: AnyRecord
    other: AnyRecord
    similarity: float


def similar_pairs(training: Sequence[AnyRecord], evaluation: Sequence[AnyRecord], threshold: float) -> Iterator[Pair]:
    """Each training record that is similar to one of evaluation, else to an earlier one of training.

    Records whose normalised prompts are equal are duplicates, not similar ones, and are passed over. Deterministic:
    the permutations have a fixed seed.
    """
    from datasketch import MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
    known: dict[str, tuple[AnyRecord, MinHash, bytes]] = {}
    for position, record in enumerate([*evaluation, *training]):
        text = normalise(record.trace.questions[-1])
        hashes = _minhash(text)
        near = [known[key] for key in sorted(index.query(hashes), key=lambda key: int(key))]
        scored = [(hashes.jaccard(theirs), other) for other, theirs, said in near if said != sha256(text)]
        if position >= len(evaluation) and scored:
            similarity, other = max(scored, key=lambda item: item[0])
            if similarity >= threshold:
                yield Pair(record, other, round(similarity, 2))
        known[str(position)] = (record, hashes, sha256(text))
        index.insert(str(position), hashes)


def _minhash(text: str) -> MinHash:
    from datasketch import MinHash

    found = MinHash(num_perm=PERMUTATIONS, seed=1)
    runs = {text[start : start + SHINGLE] for start in range(max(1, len(text) - SHINGLE + 1))}
    found.update_batch([run.encode() for run in sorted(runs)])
    return found
