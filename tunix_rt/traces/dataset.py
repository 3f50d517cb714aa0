"""A declared dataset → checked traces in their splits: everything before tokenisation.

In: the section `dataset`. Out: `Collected`, which accounts for every record read: kept, left
out and why, or unused. Bad data is an error unless a declared switch allows it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from typing import Literal

from tunix_rt.config.choices import SPLITS, SplitName
from tunix_rt.config.dataset import DatasetConfig, SplitConfig
from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject, sha256_file
from tunix_rt.traces.checks import find_duplicates, find_overlaps
from tunix_rt.traces.sources import Record, Rejected, Source, has_split, read_source, source_files
from tunix_rt.traces.split import hash_order, split_of
from tunix_rt.traces.trace import Trace

Records = dict[SplitName, list[Record]]
OVERLAPPING: tuple[tuple[SplitName, SplitName], ...] = (
    ("train", "test"),
    ("validation", "test"),
    ("train", "validation"),
)
SHOWN = 3
"""Number of offenders that an error message names."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A local file that was read: its path as in the config, its split, and its content hash."""

    path: str
    split: SplitName
    sha256: str


@dataclass(frozen=True, slots=True)
class Collected:
    """The traces of each split, in order of their hashes, and the outcome of every record."""

    splits: dict[SplitName, tuple[Trace, ...]]
    source: JsonObject
    """The section `dataset.source`: generator and version, or files and adapters, or name and revision."""
    files: tuple[SourceFile, ...]
    num_read: int
    """Number of records in all files, good or bad."""
    rejected: tuple[Rejected, ...]
    """Records left out, each with place and reason; `kind` is `invalid`, `duplicate` or `overlap`."""
    num_unused: int
    """Number of good traces beyond `dataset.limit`."""
    num_overlapping: int
    """Number of training traces that share a prompt or a run of words with evaluation."""
    num_overlapped: int
    """Number of evaluation traces that they share it with."""

    def counts(self) -> JsonObject:
        """`read` = sum of `kept` by split + sum of `rejected` by kind + `unused`; and the overlaps found."""
        rejected = Counter(record.kind for record in self.rejected)
        return {
            "read": self.num_read,
            "kept": {split: len(traces) for split, traces in self.splits.items()},
            "rejected": dict(rejected),
            "unused": self.num_unused,
            "overlaps": {"training": self.num_overlapping, "evaluation": self.num_overlapped},
            "overlaps_allowed": self.num_overlapping - rejected["overlap"],
        }

    def manifest(self) -> JsonObject:
        """The manifest entries of the prepared data about its source, as JSON."""
        return {
            "source": self.source,
            "files": [asdict(file) for file in self.files],
            "counts": self.counts(),
            "rejected": [asdict(rejected) for rejected in self.rejected],
        }


def collect(dataset: DatasetConfig) -> Collected:
    """Read, check, split and limit a dataset.

    Raises DataError for bad records, duplicates and overlaps whose switch is `error`, for an unreadable
    file, and for a declared split that ends up empty; MachineError, MissingExtra for a hub source.
    """
    records, rejected = _read(dataset.source, dataset.seed)
    num_read = sum(len(found) for found in records.values()) + len(rejected)
    if rejected and dataset.on_invalid == "error":
        raise DataError(
            _several([bad.reason for bad in rejected], f"of {num_read} records are not valid traces")
            + "; dataset.on_invalid=skip leaves them out"
        )
    records, repeated = _without_duplicates(_with_unique_ids(records), dataset.on_duplicate)
    good = _carve(records, dataset)
    chosen = {split: _limited(good[split], getattr(dataset.limit, split), dataset.seed) for split in SPLITS}
    overlapping, overlapped = _overlaps(chosen, dataset.overlap_ngram)
    apart = _separate(chosen, overlapping, dataset.on_overlap, len(overlapped))
    dropped = list(overlapping.values()) if dataset.on_overlap == "drop_train" else []
    _refuse_empty(apart, dataset, num_read)
    return Collected(
        splits={split: tuple(record.trace for record in apart[split]) for split in SPLITS},
        source=asdict(dataset.source),
        files=tuple(SourceFile(str(p), split, sha256_file(p)) for split, p in source_files(dataset.source).items()),
        num_read=num_read,
        rejected=(*rejected, *repeated, *dropped),
        num_unused=sum(len(good[split]) - len(chosen[split]) for split in SPLITS),
        num_overlapping=len(overlapping),
        num_overlapped=len(overlapped),
    )


def _read(source: Source, seed: int) -> tuple[Records, list[Rejected]]:
    records: Records = {}
    rejected: list[Rejected] = []
    for split in SPLITS:
        if has_split(source, split):
            items = list(read_source(source, split, seed))
            records[split] = [item for item in items if isinstance(item, Record)]
            rejected += [item for item in items if isinstance(item, Rejected)]
    return records, rejected


def _with_unique_ids(records: Records) -> Records:
    """The k-th trace that repeats an id gets the suffix `-k`.

    Evaluation sets are named first, so that more training data never renames their items.
    """
    taken: set[str] = set()
    named: Records = {}
    for split in reversed(SPLITS):
        if split in records:
            named[split] = [_renamed(record, taken) for record in records[split]]
    return named


def _renamed(record: Record, taken: set[str]) -> Record:
    base = record.trace.id
    identity = base if base not in taken else next(n for k in count(1) if (n := f"{base}-{k}") not in taken)
    taken.add(identity)
    return record if identity == base else replace(record, trace=replace(record.trace, id=identity))


def _without_duplicates(records: Records, on_duplicate: Literal["error", "first"]) -> tuple[Records, list[Rejected]]:
    """Keep only the first trace of each prompt.

    In evaluation sets that have their own source only identical text counts: the same question in another
    spelling is a separate test.
    """
    kept: Records = {}
    rejected: list[Rejected] = []
    for split, found in records.items():
        duplicates = find_duplicates(found, exact=split != "train")
        repeated = {duplicate.position for duplicate in duplicates}
        kept[split] = [record for position, record in enumerate(found) if position not in repeated]
        rejected += [
            Rejected(found[item.position].where, "duplicate", f"same prompt as {found[item.first].where}")
            for item in duplicates
        ]
    if rejected and on_duplicate == "error":
        examples = [f"{bad.where}: {bad.reason}" for bad in rejected]
        raise DataError(_several(examples, "prompts occur again") + "; dataset.on_duplicate=first keeps the first")
    return kept, rejected


def _carve(records: Records, dataset: DatasetConfig) -> Records:
    """Hold out the shares of `train` for the splits that have no source of their own."""
    shares = SplitConfig(
        validation=0.0 if "validation" in records else dataset.split.validation,
        test=0.0 if "test" in records else dataset.split.test,
    )
    carved: Records = {split: [] if split == "train" else list(records.get(split, [])) for split in SPLITS}
    for record in records["train"]:
        carved[split_of(record.trace, shares, dataset.seed)].append(record)
    return carved


def _limited(records: Sequence[Record], n: int | None, seed: int) -> list[Record]:
    return sorted(records, key=lambda record: hash_order(record.trace, seed))[:n]


def _overlaps(splits: Records, ngram: int) -> tuple[dict[str, Rejected], set[str]]:
    """The training traces, by id, that overlap with evaluation; and the ids of the evaluation traces.

    Relative to test, validation counts as training, because it steers training.
    """
    training: dict[str, Rejected] = {}
    evaluation: set[str] = set()
    for near, far in OVERLAPPING:
        for overlap in find_overlaps(splits[near], splits[far], ngram):
            record = splits[near][overlap.position]
            others = [splits[far][position] for position in overlap.evaluation]
            reason = f"shares {overlap.shared[:100]!r} with {far} {others[0].where}"
            training.setdefault(record.trace.id, Rejected(record.where, "overlap", reason))
            evaluation.update(other.trace.id for other in others)
    return training, evaluation


def _separate(splits: Records, overlapping: Mapping[str, Rejected], on_overlap: str, num_evaluation: int) -> Records:
    """The splits after applying `on_overlap`; with `error` any overlap raises DataError."""
    if overlapping and on_overlap == "error":
        examples = [f"{found.where} {found.reason}" for found in overlapping.values()]
        what = f"training prompts overlap with {num_evaluation} of evaluation"
        raise DataError(f"{_several(examples, what)}; dataset.on_overlap=drop_train drops them, =allow keeps them")
    if on_overlap == "allow":
        return splits
    return {
        split: [record for record in records if record.trace.id not in overlapping] for split, records in splits.items()
    }


def _refuse_empty(splits: Records, dataset: DatasetConfig, num_read: int) -> None:
    """Refuse an empty split that was declared, by a source or a share."""
    for split in SPLITS:
        share = 0.0 if split == "train" else getattr(dataset.split, split)
        if not splits[split] and (has_split(dataset.source, split) or share > 0):
            sizes = ", ".join(f"{name} {len(records)}" for name, records in splits.items())
            remedy = f"raise dataset.split.{split} ({share}) or " if share > 0 else ""
            raise DataError(
                f"dataset {dataset.name}: nothing is left for {split} ({num_read} records read; {sizes}); "
                f"{remedy}give more data"
            )


def _several(examples: Sequence[str], what: str) -> str:
    """`3 training prompts …: first; second; …` with the first few examples."""
    more = "; …" if len(examples) > SHOWN else ""
    return f"{len(examples)} {what}: {'; '.join(examples[:SHOWN])}{more}"
