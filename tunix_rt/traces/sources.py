"""A declared source → its traces in order, each with its place; a bad record is yielded with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tunix_rt.checked import hashes
from tunix_rt.config.choices import SPLITS, SplitName
from tunix_rt.config.dataset import DataFile, FilesSource, GeneratedSource, HuggingfaceSource, MixtureSource
from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject, digest, to_json
from tunix_rt.traces.adapters import adapt
from tunix_rt.traces.data_files import Columns, files_of_splits, found_files, read_records
from tunix_rt.traces.generated import generate
from tunix_rt.traces.hub_data import commit_of, hub_table, one_line
from tunix_rt.traces.keys import Fingerprints, Keys, fingerprints, keys_of
from tunix_rt.traces.messages import Rules
from tunix_rt.traces.tables import arrow_row
from tunix_rt.traces.trace import MIXED, Trace

OWN = "own_dataset"
"""Key of `meta` for what a record of a mixture says itself under `MIXED`."""
Source = GeneratedSource | FilesSource | HuggingfaceSource


@dataclass(frozen=True, slots=True)
class Part:
    """A source of a mixture; a source that is no mixture is its own only part."""

    name: str
    """Empty if there is no mixture."""
    setting: str
    """Its dotted path in the config."""
    weight: float
    source: Source


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A local file that the dataset names; it may be missing."""

    setting: str
    """The dotted path in the config of the split that it belongs to."""
    split: SplitName
    path: Path
    origin: str | None
    """Where it can be downloaded."""


@dataclass(frozen=True, slots=True)
class Record:
    """A trace and its place: `file:line`, `name@revision:split[i]`, or the id of a generated one."""

    where: str
    trace: Trace

    @property
    def id(self) -> str:
        """Of the trace."""
        return self.trace.id

    @property
    def keys(self) -> Keys:
        """What is compared of the trace."""
        return keys_of(self.trace)

    def fingerprints(self, ngram: int) -> Fingerprints:
        """What is compared between splits."""
        return fingerprints(self.trace, ngram)


class AnyRecord(Protocol):
    """A record, in memory or on disk (`spool`)."""

    @property
    def id(self) -> str: ...
    @property
    def where(self) -> str: ...
    @property
    def trace(self) -> Trace: ...
    @property
    def keys(self) -> Keys: ...
    def fingerprints(self, ngram: int) -> Fingerprints: ...


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that is left out of the dataset: its place, the kind of the reason, the full reason."""

    where: str
    kind: str
    reason: str


def parts_of(source: Source | MixtureSource) -> tuple[Part, ...]:
    """The sources of a dataset, in their declared order."""
    if not isinstance(source, MixtureSource):
        return (Part("", "dataset.source", 1.0, source),)
    below = "dataset.source.sources"
    named = source.sources.items()
    return tuple(Part(name, f"{below}.{name}.source", mixed.weight, mixed.source) for name, mixed in named)


def has_split(source: Source, split: SplitName) -> bool:
    """Whether the split has a source of its own; otherwise it is carved from `train`, if there is one."""
    if isinstance(source, GeneratedSource):
        return split == "train"
    return getattr(source, split) is not None


def read_source(part: Part, split: SplitName, seed: int, rules: Rules) -> Iterator[Record | Rejected]:
    """Records of a split that has a source of its own.

    Raises DataError (missing, binary or empty file; too few problems), MachineError (hub), MissingExtra.
    """
    source = part.source
    if isinstance(source, GeneratedSource):
        found: Iterator[Record | Rejected] = (Record(trace.id, trace) for trace in generate(source, seed))
    elif isinstance(source, FilesSource):
        found = _read_files(source, split, f"{part.setting}.{split}", rules)
    else:
        found = _read_hub(source, getattr(source, split), rules)
    return (_named(item, part.name, rules) for item in found) if part.name else found


def _named(item: Record | Rejected, name: str, rules: Rules) -> Record | Rejected:
    """The record with its source's name; what it says itself under that key is kept under another."""
    if isinstance(item, Rejected):
        return item
    meta, own = item.trace.meta, {}
    if MIXED in meta and meta[MIXED] != name:
        own = {OWN: meta[MIXED]}
        rules.noted[f"meta.{MIXED} of records called meta.{OWN}"] += 1
    return replace(item, trace=replace(item.trace, meta=own | meta | {MIXED: name}))


def source_files(source: Source | MixtureSource) -> list[SourceFile]:
    """The local files of a dataset, in the order in which they are read.

    Raises DataError for a folder without data, or a glob that matches nothing.
    """
    return [
        SourceFile(f"{part.setting}.{split}", split, path, part.source.origin)
        for part in parts_of(source)
        if isinstance(part.source, FilesSource)
        for split in SPLITS
        if has_split(part.source, split)
        for path in _files(getattr(part.source, split), split)
    ]


def _files(declared: DataFile, split: SplitName) -> tuple[Path, ...]:
    paths = (declared.path,) if isinstance(declared.path, str) else declared.path
    return tuple(file for path in paths for file in found_files(path, split))


def _num_unread(source: FilesSource) -> int:
    """How many files of the training folder are named for another split, which names no source."""
    assert source.train is not None
    paths = (source.train.path,) if isinstance(source.train.path, str) else source.train.path
    named = [(split, files) for path in paths for split, files in files_of_splits(path).items()]
    return sum(len(files) for split, files in named if not has_split(source, split))


def content_digest(source: Source) -> str | None:
    """The content of a source of the `datasets` library: the bytes of a local folder's files, or the hub commit.

    None if the config determines it: other sources, and a named commit. Raises MachineError if the hub cannot
    resolve a branch to a commit.
    """
    if not isinstance(source, HuggingfaceSource):
        return None
    if Path(source.name).is_dir():
        return digest(hashes(Path(source.name)))
    commit = commit_of(source)
    return None if commit == source.revision else commit


def _read_files(source: FilesSource, split: SplitName, setting: str, rules: Rules) -> Iterator[Record | Rejected]:
    declared: DataFile = getattr(source, split)
    columns = Columns(declared.columns, f"{setting}: columns")
    if split == "train":
        rules.noted["files named for a split that has no source"] += _num_unread(source)
    for file in _files(declared, split):
        if not file.exists():
            public = f"; download it from {source.origin}" if source.origin else ""
            raise DataError(f"{file}: no such file{public}; say where it lies with {setting}.path=FILE")
        for where, value in read_records(file, rules.noted):
            if isinstance(value, DataError):
                yield Rejected(where, "invalid", str(value))
            else:
                yield _adapted(columns.rename(value), declared, where, rules)
    columns.check()


def _adapted(record: JsonObject, declared: DataFile | HuggingfaceSource, where: str, rules: Rules) -> Record | Rejected:
    try:
        trace = adapt(record, declared.adapter, where, rules)
        to_json(trace.to_json()).encode()  # what no file could hold is found here, with its place
        return Record(where, trace)
    except DataError as error:
        return Rejected(where, "invalid", str(error))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:  # one row never stops the others
        return Rejected(where, "invalid", f"{where}: not a readable record ({one_line(error)})")


def _read_hub(source: HuggingfaceSource, split: str, rules: Rules) -> Iterator[Record | Rejected]:
    """Rows of one split, from the hub, the local cache, or a local folder. Missing values are None."""
    columns = Columns(source.columns, f"{source.name}, split {split!r}: columns")
    for number, row in enumerate(hub_table(source, split)):
        present = columns.rename(arrow_row(row, rules.noted))
        yield _adapted(present, source, f"{source.name}@{source.revision}:{split}[{number}]", rules)
    columns.check()
