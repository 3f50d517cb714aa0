"""The verdicts of several runs on the same prompts, side by side, or the reason why they cannot be compared.

Only answers to the same questions are paired. The manifest of the prepared data has a digest of the questions of each
split (id, everything that was asked, final answer); prompt and reference of every item are compared too, since older
records lack that digest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunix_rt import hints
from tunix_rt.errors import InputError
from tunix_rt.files import JsonObject, read_record, to_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.terminal import cut
from tunix_rt.traces.prediction import read_items

Key = tuple[str, int]
"""Id and sample of an answer."""
Items = dict[Key, JsonObject]
SEEDS = ("seed", "training.seed", "generation.seed")
"""Keys of which a repetition may have another value. Another `dataset.seed` is another test set."""
OLD_RULES = ("answer", "relative_tolerance")
"""Keys of `evaluation` that decided an answer in records of schema 1."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs' verdicts on the same sample of the same prompt: lines of `items.jsonl`."""

    id: str
    sample: int
    left: JsonObject
    right: JsonObject


@dataclass(frozen=True, slots=True)
class Aligned:
    """The items of several runs that answered the same questions."""

    keys: tuple[Key, ...]
    """In the order of the first run."""
    items: tuple[Items, ...]
    """For each run."""
    left_out: tuple[int, ...]
    """For each run, the number of its answers that are not in `keys`; all 0 unless `common` was asked for."""


def paired(left: RunFolder, right: RunFolder, common: bool = False) -> list[Pair]:
    """The items of two runs by (id, sample), in the order of `left`. `common` and errors: see `aligned`."""
    found = aligned((left, right), common)
    return [Pair(*key, found.items[0][key], found.items[1][key]) for key in found.keys]


def aligned(runs: Sequence[RunFolder], common: bool = False, metric: str = "accuracy") -> Aligned:
    """The items of runs that answered the same questions, judged by the same scorer: of `scores.NAME`, by that one.

    `common`: runs that were asked different questions are compared on those that all of them were asked, with the same
    prompt and reference. Raises InputError with the reason why they cannot be compared, DataError for a damaged record.
    """
    items = tuple(_items(run) for run in runs)
    for run, found in zip(runs[1:], items[1:], strict=True):
        _check_judges(runs[0], run, metric)
        if not common:
            _check_questions(runs[0], items[0], run, found)
    keys = tuple(key for key in items[0] if all(_same(items[0], found, key) for found in items[1:]))
    if not keys:
        raise InputError(f"{', '.join(run.name for run in runs)}: they were asked no question in common")
    return Aligned(keys, items, tuple(len(found) - len(keys) for found in items))


def _items(run: RunFolder) -> Items:
    """The items of a finished run. Raises InputError."""
    evaluated = run.stages().get("evaluate", {}).get("state") == "done"
    if not (evaluated and run.items.exists()):
        state = run.status().get("state", "not begun")
        what = "its items.jsonl is missing" if evaluated else f"not finished ({state})"
        if state == "finished" and not evaluated:
            what = "its stages.json does not say that it was evaluated"
        raise InputError(f"{run.name}: {what}, so it has no verdicts to compare; run its command again")
    return {(item["id"], item["sample"]): item for item in read_items(run.items)}


def _check_judges(first: RunFolder, other: RunFolder, metric: str) -> None:
    """Raise InputError unless the same scorer gave the metric, on answers that were found in the same way."""
    judges = [_judge(run.read_config(), metric) for run in (first, other)]
    if judges[0] != judges[1]:
        shown = [", ".join(f"{name}: {to_json(value)}" for name, value in judge.items()) for judge in judges]
        again = hints.tunix_rt("evaluate", other.name, "evaluation=…")
        raise InputError(
            f"{first.name} and {other.name} were judged by different rules ({shown[0]} and {shown[1]}); "
            f"judge one of them again by the other's: {again}"
        )


def _judge(config: JsonObject, metric: str) -> dict[str, Any]:
    """The rules of a recorded config that give the metric; if it is of no scorer, those that decide what is right."""
    rules = config.get("evaluation", {})
    if "scorers" in rules:
        head, _, rest = metric.partition(".")
        name = rest.partition(".")[0] if head == "scores" else rules["scorers"][0]["kind"]
        scorer = next((scorer for scorer in rules["scorers"] if scorer["kind"] == name), None)
        return {"scorer": scorer, "extract": rules.get("extract")}
    return {"scorer": {name: rules.get(name) for name in OLD_RULES}, "extract": rules.get("extract")}


def _check_questions(first: RunFolder, mine: Items, other: RunFolder, its: Items) -> None:
    """Raise InputError unless both were asked the same."""
    splits = [str(run.read_config().get("generation", {}).get("split")) for run in (first, other)]
    names = f"{first.name} and {other.name}"
    if splits[0] != splits[1]:
        raise InputError(f"{names} answered different splits: {splits[0]} and {splits[1]}")
    reason = _difference(mine, its)
    if reason is None and not _same_digest(first, other, splits[0]):
        reason = "the same prompts and references, but with other instructions or tools"
    if reason is not None:
        raise InputError(f"{names} were not asked the same: {reason}")


def _difference(mine: Items, its: Items) -> str | None:
    """How the questions of two runs differ; None if they do not."""
    ids = [{name for name, _ in items} for items in (mine, its)]
    shared = sum(_same(mine, its, key) for key in mine)
    if ids[0] != ids[1]:
        both = f"{shared} answers are to a question of both (--common compares those)" if shared else "none in common"
        return f"{len(ids[0])} and {len(ids[1])} prompts; {both}"
    if mine.keys() != its.keys():
        samples = [max(Counter(name for name, _ in items).values()) for items in (mine, its)]
        if samples[0] != samples[1]:
            return f"{samples[0]} and {samples[1]} samples per prompt (--common compares those that both have)"
        return f"{len(mine)} and {len(its)} answers: some are missing (--common compares those that both have)"
    for key in mine:
        for name in ("prompt", "reference"):
            if mine[key][name] != its[key][name]:
                texts = f"{_shown(mine[key][name])} and {_shown(its[key][name])}"
                return f"{len(mine) - shared} of {len(mine)} differ, the first in the {name} of {key[0]}: {texts}"
    return None


def _same(mine: Items, its: Items, key: Key) -> bool:
    """Whether both have an answer of this key to the same prompt with the same reference."""
    other = its.get(key)
    return other is not None and all(mine[key][name] == other[name] for name in ("prompt", "reference"))


def _same_digest(first: RunFolder, other: RunFolder, split: str) -> bool:
    """Whether the digests of their questions agree; True if one of them has none (records before there were any)."""
    digests = [read_record(run.data).get("questions", {}).get(split) for run in (first, other)]
    return None in digests or digests[0] == digests[1]


def _shown(text: str) -> str:
    return to_json(cut(text, 40))
