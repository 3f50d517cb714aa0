"""What is allowed and yet worth a look: conflicting answers, answers in prompts, near-duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunix_rt.config.choices import SplitName
from tunix_rt.files import JsonObject
from tunix_rt.traces.checks import sha256
from tunix_rt.traces.similar import similar_pairs
from tunix_rt.traces.sources import AnyRecord, Rejected
from tunix_rt.traces.trace import Trace, normalise

Records = Mapping[SplitName, Sequence[AnyRecord]]
LEAST_GIVEN = 12
"""Characters of a final answer from which its occurrence in the prompt is no accident."""
SHOWN = 3


def look_closer(read: Records, chosen: Records, threshold: float | None) -> tuple[JsonObject, dict[str, Rejected]]:
    """What a person should look at (name → count, examples), and the training traces that are near-duplicates, by id.

    `read`: the records before any were held out or left out; `threshold`: similarity of near-duplicates, None: not
    looked for.
    """
    found = {
        "one question with different answers": _conflicts(read),
        "the answer stands in the prompt": [
            f"{record.where}: {record.trace.final_answer!r} in {record.trace.prompt!r}"
            for records in chosen.values()
            for record in records
            if _given_away(record.trace)
        ],
    }
    similar: dict[str, Rejected] = {}
    if threshold is not None:
        evaluation = [*chosen["test"], *chosen["validation"]]
        for pair in similar_pairs(chosen["train"], evaluation, threshold):
            reason = f"{pair.similarity:.0%} like {pair.other.where}: {pair.record.trace.prompt!r}"
            similar[pair.record.id] = Rejected(pair.record.where, "near_duplicate", reason)
        found["near-duplicates in training"] = [f"{item.where} {item.reason}" for item in similar.values()]
    return {name: {"count": len(lines), "examples": lines[:SHOWN]} for name, lines in found.items()}, similar


def _conflicts(records: Records) -> list[str]:
    """Questions that occur with different final answers."""
    answers: dict[bytes, tuple[bytes, AnyRecord]] = {}
    others: dict[bytes, list[AnyRecord]] = {}
    for record in (record for found in records.values() for record in found):
        trace = record.trace
        question, answer = sha256(normalise(trace.asked)), sha256(normalise(trace.final_answer))
        if answers.setdefault(question, (answer, record))[0] != answer:
            others.setdefault(question, [answers[question][1]]).append(record)
    return [
        " and ".join(f"{r.where} ({r.trace.final_answer[:40]!r})" for r in some[:SHOWN]) for some in others.values()
    ]


def _given_away(trace: Trace) -> bool:
    """Whether the final answer, if it is more than a short number or word, stands in the prompt as it is."""
    answer = normalise(trace.final_answer)
    return len(answer) >= LEAST_GIVEN and answer in normalise(trace.prompt)
