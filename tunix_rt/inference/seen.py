"""Prompts that a model was trained on by an earlier run: what it answers to them says nothing about new ones."""

from __future__ import annotations

from collections.abc import Sequence

from tunix_rt.config.choices import SplitName
from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject
from tunix_rt.runs.diff import value_at
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.origin import ancestors
from tunix_rt.terminal import say, warn
from tunix_rt.traces.checks import Overlap, find_overlaps
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.traces.sources import Record
from tunix_rt.traces.spool import Spool, Spooled

NGRAM = 13
"""`dataset.overlap_ngram` of data prepared before manifests named it."""
LEARNED: tuple[SplitName, ...] = ("train", "validation")
"""Validation counts as training, because it steers training."""
EXAMPLES = 3


def seen_in_training(run: RunFolder, prepared: PreparedData, split: SplitName) -> JsonObject | None:
    """How many prompts of a split share their text, or a run of words, with what the start model was trained on.

    The data of the runs that trained it are compared as `prepare` compares training with evaluation. Returns `prompts`,
    `seen` (None: nothing could be compared), `runs`, `not_compared` (why not) and `examples`, and says so; None if the
    model is not known to come from a run.
    """
    runs, registered = ancestors(run), value_at(run.read_config(), "model.source.uri")
    if not runs and registered is None:
        return None
    ngram = int(prepared.manifest.get("switches", {}).get("overlap_ngram", NGRAM))
    asked = _spooled(prepared, split, ngram, "")
    compared, found, examples = [], set[int](), list[str]()
    problems = [] if registered is None else [f"{registered}: what a registered model was trained on is not here"]
    for other in runs:
        try:
            data = _data_of(other)
            learned = [record for name in LEARNED for record in _spooled(data, name, ngram, f"{other.name} ")]
        except DataError as error:
            problems.append(f"{other.name}: {error}")
            continue
        compared.append(other.name)
        overlaps = find_overlaps(learned, asked, ngram)
        found.update(place for overlap in overlaps for place in overlap.evaluation)
        examples += [_example(overlap, learned, asked) for overlap in overlaps[: EXAMPLES - len(examples)]]
    facts: JsonObject = {"runs": compared, "not_compared": problems, "prompts": len(asked), "examples": examples}
    facts["seen"] = len(found) if compared else None
    _say(facts, split)
    return facts


def _data_of(run: RunFolder) -> PreparedData:
    """What a run was trained on. Raises DataError if it is gone."""
    prepared = PreparedData(run.data_folder)
    if not prepared.is_whole:
        raise DataError(f"its data {prepared.folder} are not there any more")
    return prepared


def _spooled(prepared: PreparedData, split: SplitName, ngram: int, of: str) -> list[Spooled]:
    """The traces of a split on disk, with what is compared of them."""
    spool = Spool(None, ngram, 0)
    return [spool.add(Record(f"{of}{split} {trace.id}", trace)) for trace in prepared.each_trace(split)]


def _example(overlap: Overlap, learned: Sequence[Spooled], asked: Sequence[Spooled]) -> str:
    there = asked[overlap.evaluation[0]]
    return f"{there.where} shares {overlap.shared[:100]!r} with {learned[overlap.position].where}"


def _say(facts: JsonObject, split: SplitName) -> None:
    for problem in facts["not_compared"]:
        say(f"whether the {split} prompts were trained on cannot be checked: {problem}")
    if facts["seen"]:
        share = f"{facts['seen']} of {facts['prompts']} {split} prompts"
        warn(f"{share} share text with what {', '.join(facts['runs'])} was trained on: {'; '.join(facts['examples'])}")
