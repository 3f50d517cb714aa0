"""What is allowed and yet worth a look: conflicting answers, answers in prompts, near-duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from tunix_rt.config.choices import SplitName
from tunix_rt.files import JsonObject
from tunix_rt.traces.similar import similar_pairs
from tunix_rt.traces.sources import AnyRecord, Rejected

Records = Mapping[SplitName, Sequence[AnyRecord]]
SHOWN = 3


def look_closer(read: Records, chosen: Records, threshold: float | None) -> tuple[JsonObject, dict[str, Rejected]]:
    """What a person should look at (name → count, examples), and the training traces that are near-duplicates, by id.

    `read`: the records before any were held out or left out; `threshold`: similarity of near-duplicates, None: not
    looked for (it takes about 2 kB of memory for each record).
    """
    given = [record for records in chosen.values() for record in records if record.keys.given_away]
    found = {
        "one question with different answers": _conflicts(read),
        "the answer stands in the prompt": (len(given), [_given(record) for record in given[:SHOWN]]),
    }
    similar: dict[str, Rejected] = {}
    if threshold is not None:
        evaluation = [*chosen["test"], *chosen["validation"]]
        for pair in similar_pairs(chosen["train"], evaluation, threshold):
            reason = f"{pair.similarity:.0%} like {pair.other.where}: {pair.record.trace.prompt!r}"
            similar[pair.record.id] = Rejected(pair.record.where, "near_duplicate", reason)
        shown = [f"{item.where} {item.reason}" for item in list(similar.values())[:SHOWN]]
        found["near-duplicates in training"] = (len(similar), shown)
    return {name: {"count": count, "examples": lines} for name, (count, lines) in found.items()}, similar


def _given(record: AnyRecord) -> str:
    trace = record.trace
    return f"{record.where}: {trace.final_answer!r} in {trace.prompt!r}"


def _conflicts(records: Records) -> tuple[int, list[str]]:
    """How many questions occur with different final answers, and the first of them."""
    found = list(chain.from_iterable(records.values()))
    both = bytearray()
    for record in found:
        both += record.keys.normal + record.keys.answer
    keys = np.frombuffer(both, np.dtype([("question", "S16"), ("answer", "S16")]))
    _, first, which = np.unique(keys["question"], return_index=True, return_inverse=True)
    others = np.flatnonzero(keys["answer"] != keys["answer"][first[which]])
    _, told = np.unique(which[others], return_index=True)
    asked = which[others[np.sort(told)[:SHOWN]]]
    shown = [
        [found[first[one]], *(found[place] for place in others[which[others] == one][: SHOWN - 1])] for one in asked
    ]
    return len(told), [" and ".join(f"{r.where} ({r.trace.final_answer[:40]!r})" for r in some) for some in shown]
