"""A declared dataset → checked traces in their splits: everything before tokenisation.

Bad data is an error unless a declared switch of the section `dataset` allows it; every record read is accounted for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tunix_rt.config.choices import SPLITS, ReaderName, SplitName
from tunix_rt.config.dataset import DatasetConfig, SplitConfig
from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject, sha256_file, to_json
from tunix_rt.traces.checks import find_duplicates, find_overlaps
from tunix_rt.traces.findings import look_closer
from tunix_rt.traces.keys import group_hash, hash_of
from tunix_rt.traces.messages import Rules
from tunix_rt.traces.sources import (
    Part,
    Record,
    Rejected,
    has_split,
    parts_of,
    read_source,
    source_files,
)
from tunix_rt.traces.spool import Spool, Spooled
from tunix_rt.traces.trace import MIXED, Trace

Records = dict[SplitName, list[Spooled]]
OVERLAPPING: tuple[tuple[SplitName, SplitName], ...] = (
    ("train", "test"),
    ("validation", "test"),
    ("train", "validation"),
)
"""Relative to test, validation counts as training, because it steers training."""
SHOWN = 3
"""Number of offenders that an error message names."""


@dataclass(frozen=True, slots=True)
class Collected:
    """The traces of each split, in order of their hashes, and the outcome of every record."""

    records: dict[SplitName, list[Spooled]]
    """Each is read from disk when it is asked for."""
    manifest: JsonObject
    """`source` (the section), `files` read (path as declared, split, sha256), `counts`, and what was `rejected`.

    `counts`: `read` = sum of `kept` by split + sum of `rejected` by kind + `unused` (beyond `dataset.limit`); and the
    `overlaps` found: training traces that share a prompt or a run of words with evaluation, and those they share with.
    """

    def lines(self, split: SplitName) -> Iterator[tuple[bytes, str]]:
        """The traces of a split as they are on disk, with their ids: what `spool.read_line` takes."""
        return ((record.spool.line(record.number), record.id) for record in self.records[split])

    def traces(self, split: SplitName) -> Iterator[Trace]:
        """The traces of a split, one after the other."""
        return (record.trace for record in self.records[split])

    @property
    def splits(self) -> dict[SplitName, tuple[Trace, ...]]:
        """The traces of all splits, in memory."""
        return {split: tuple(self.traces(split)) for split in self.records}


def collect(dataset: DatasetConfig, reader: ReaderName | None = None, folder: Path | None = None) -> Collected:
    """Read, check, split and limit a dataset. `reader` labels completions that are text (null: `auto`); `folder` is on
    a disk that has room for a copy of the data.

    Raises DataError for bad records, duplicates and overlaps whose switch is `error`, for an unreadable
    file, and for a declared split that ends up empty; MachineError, MissingExtra for a hub source.
    """
    rules = _rules(dataset, reader)
    records, invalid = _read(dataset, rules, Spool(folder, dataset.overlap_ngram, dataset.seed))
    num_read = sum(map(len, records.values())) + len(invalid)
    what = f"of {num_read} records are not valid traces"
    refuse(dataset.on_invalid == "error", [bad.reason for bad in invalid], what, "on_invalid=skip leaves them out")
    read = _with_unique_ids(records)
    records, repeated = _without_duplicates(read) if dataset.on_duplicate != "keep" else (read, [])
    examples = [f"{bad.where}: {bad.reason}" for bad in repeated]
    remedy = "on_duplicate=first keeps the first, =keep all of them"
    refuse(dataset.on_duplicate == "error", examples, "prompts occur again", remedy)
    chosen, num_unused = _carve(records, dataset)
    training, evaluation = _overlaps(chosen, dataset.overlap_ngram)
    examples = [f"{bad.where} {bad.reason}" for bad in training.values()]
    what = f"training prompts overlap with {len(evaluation)} of evaluation"
    refuse(dataset.on_overlap == "error", examples, what, "on_overlap=drop_train drops them, =allow keeps them")
    findings, similar = look_closer(read, chosen, dataset.near_duplicates)
    dropped = training if dataset.on_overlap == "drop_train" else {}
    dropped = similar | dropped if dataset.on_near_duplicate == "drop" else dropped
    splits = {split: [record for record in found if record.id not in dropped] for split, found in chosen.items()}
    _refuse_empty(splits, dataset, num_read)
    rejected = [*invalid, *repeated, *dropped.values()]
    counts: JsonObject = {
        "read": num_read,
        "kept": {split: len(traces) for split, traces in splits.items()},
        "rejected": dict(Counter(record.kind for record in rejected)),
        "unused": num_unused,
        "overlaps": {"training": len(training), "evaluation": len(evaluation)},
        "overlaps_allowed": sum(name not in dropped for name in training),
        "noted": dict(sorted((+rules.noted).items())),
    }
    return Collected(splits, _manifest(dataset, counts, rejected, findings))


def _rules(dataset: DatasetConfig, reader: ReaderName | None) -> Rules:
    return Rules(
        reader="auto" if reader in (None, "format") else reader,
        consecutive=dataset.on_consecutive,
        last_user=dataset.on_last_user,
        previous_thoughts=dataset.previous_thoughts,
        strip=dataset.strip,
        max_characters=dataset.max_characters,
    )


def _manifest(
    dataset: DatasetConfig, counts: JsonObject, rejected: Sequence[Rejected], findings: JsonObject
) -> JsonObject:
    files = [
        {"path": str(file.path), "split": file.split, "sha256": sha256_file(file.path)}
        for file in source_files(dataset.source)
    ]
    listed = [asdict(record) for record in rejected]
    manifest = {"source": asdict(dataset.source), "files": files, "counts": counts, "rejected": listed}
    return manifest | {"findings": findings}


def refuse(refused: bool, examples: Sequence[str], what: str, remedy: str) -> None:
    """With `refused`, raises DataError if there are examples, naming the first few."""
    if refused and examples:
        shown = "; ".join(examples[:SHOWN]) + ("; …" if len(examples) > SHOWN else "")
        raise DataError(f"{len(examples)} {what}: {shown}; dataset.{remedy}")


def _read(dataset: DatasetConfig, rules: Rules, spool: Spool) -> tuple[Records, list[Rejected]]:
    records: Records = {}
    invalid: list[Rejected] = []
    for part in parts_of(dataset.source):
        for split in SPLITS:
            if has_split(part.source, split):
                found = records.setdefault(split, [])
                for item in read_source(part, split, dataset.seed, rules):
                    if isinstance(item, Record):
                        found.append(spool.add(item))
                    else:
                        invalid.append(item)
    return records, invalid


def _with_unique_ids(records: Records) -> Records:
    """The k-th trace that repeats an id gets the suffix `-k`.

    Evaluation sets are named first, so that more training data never renames their items.
    """
    taken: dict[str, int] = {}

    def named(record: Spooled) -> Spooled:
        base = identity = record.id
        while identity in taken:
            identity = f"{base}-{taken[base]}"
            taken[base] += 1
        taken[identity] = 1
        return record if identity == base else replace(record, id=identity)

    return {split: [named(record) for record in records[split]] for split in reversed(SPLITS) if split in records}


def _without_duplicates(records: Records) -> tuple[Records, list[Rejected]]:
    """Only the first trace of each prompt, and the others.

    In evaluation sets that have their own source only identical text counts: the same question in another
    spelling is a separate test.
    """
    kept: Records = {}
    rejected: list[Rejected] = []
    for split, found in records.items():
        repeated = find_duplicates(found, exact=split != "train")
        kept[split] = [record for position, record in enumerate(found) if position not in repeated]
        rejected += [
            Rejected(found[position].where, "duplicate", f"same prompt as {found[first].where}")
            for position, first in repeated.items()
        ]
    return kept, rejected


def _carve(records: Records, dataset: DatasetConfig) -> tuple[Records, int]:
    """Hold out the shares of `train` for the splits that a source has not by itself, and apply `dataset.limit`.

    Also returns the number of traces beyond the limits.
    """
    shares = {part.name: _shares(part, dataset.split) for part in parts_of(dataset.source)}
    carved: Records = {split: [] if split == "train" else list(records.get(split, [])) for split in SPLITS}
    for record in records.get("train", []):
        share = shares[""] if "" in shares else shares[record.trace.meta[MIXED]]
        carved[split_at(_share(record.group), share)].append(record)
    chosen = {split: _limited(found, dataset, split) for split, found in carved.items()}
    return chosen, sum(len(carved[split]) - len(chosen[split]) for split in SPLITS)


def _limited(found: list[Spooled], dataset: DatasetConfig, split: SplitName) -> list[Spooled]:
    """The traces of a split that `dataset.limit` keeps, in order of their hashes."""

    def place(record: Spooled) -> int:
        return hash_order(record.group, record.id, dataset.seed)

    limit, key = getattr(dataset.limit, split), dataset.limit.balance
    ordered = sorted(found, key=place)
    if split != "train" or key is None:
        return ordered[:limit]
    return sorted(_in_turn(ordered, key)[:limit], key=place)


def _in_turn(records: Sequence[Spooled], key: str) -> list[Spooled]:
    """The first record of each value of a key of `meta`, then the second of each, and so on. Raises DataError."""
    counted, ranks = Counter[str](), list[int]()
    metas = [record.trace.meta for record in records]
    if metas and not any(key in meta for meta in metas):
        raise DataError(f"dataset.limit.balance: no training trace has meta.{key}; there are {', '.join(metas[0])}")
    for meta in metas:
        value = to_json(meta.get(key))
        ranks.append(counted[value])
        counted[value] += 1
    return [records[place] for place in sorted(range(len(records)), key=ranks.__getitem__)]


def _shares(part: Part, split: SplitConfig) -> SplitConfig:
    return SplitConfig(
        validation=0.0 if has_split(part.source, "validation") else split.validation,
        test=0.0 if has_split(part.source, "test") else split.test,
    )


def times_seen(trace: Trace, dataset: DatasetConfig) -> int:
    """How often an epoch has a training trace, by the weight of its source in a mixture; the fraction, by its hash."""
    weights = {part.name: part.weight for part in parts_of(dataset.source)}
    weight = weights.get(trace.meta.get(MIXED, ""), 1.0) if "" not in weights else 1.0
    return int(weight) + (hash_of(f"weight:{trace.id}", dataset.seed) / 2**64 < weight % 1)


def _overlaps(splits: Records, ngram: int) -> tuple[dict[str, Rejected], set[str]]:
    """The training traces, by id, that overlap with evaluation; and the ids of the evaluation traces."""
    training: dict[str, Rejected] = {}
    evaluation: set[str] = set()
    for near, far in OVERLAPPING:
        for position, positions, shared in find_overlaps(splits[near], splits[far], ngram):
            record, others = splits[near][position], [splits[far][other] for other in positions]
            reason = f"shares {shared[:100]!r} with {far} {others[0].where}"
            training.setdefault(record.id, Rejected(record.where, "overlap", reason))
            evaluation.update(other.id for other in others)
    return training, evaluation


def _refuse_empty(splits: Mapping[SplitName, Sequence[Spooled]], dataset: DatasetConfig, num_read: int) -> None:
    """Refuse an empty split that was declared, by a source or a share."""
    parts = parts_of(dataset.source)
    to_carve = any(has_split(part.source, "train") for part in parts)
    for split in SPLITS:
        share = getattr(dataset.split, split) if to_carve and split != "train" else 0.0
        own = any(has_split(part.source, split) for part in parts)
        if not splits[split] and (own or share > 0):
            sizes = ", ".join(f"{name} {len(traces)}" for name, traces in splits.items())
            remedy = f"raise dataset.split.{split} ({share}) or " if share > 0 else ""
            raise DataError(
                f"dataset {dataset.name}: nothing is left for {split} ({num_read} records read; {sizes}); "
                f"{remedy}give more data"
            )


def share_of(trace: Trace, seed: int) -> float:
    """Where a trace of the `train` source stands in [0, 1), by the hash of its group (`meta.group`, else its normalised
    prompt: conversations that begin alike stay together) and of the seed: adding items never moves an old one."""
    return _share(group_hash(trace, seed))


def _share(group: int) -> float:
    return (group >> 11) / 2**53


def split_at(share: float, split: SplitConfig) -> SplitName:
    """The split of what stands at `share_of`: `test` from the low end, `validation` from the high end.

    With a share taken from each end, changing one never moves items in or out of the other.
    """
    if share < split.test:
        return "test"
    return "validation" if share >= 1 - split.validation else "train"


def hash_order(group: int, identity: str, seed: int) -> int:
    """Sort key, 128 bits: the traces of a group are neighbours. A limit takes the lowest."""
    return group << 64 | hash_of(f"id:{identity}", seed)
