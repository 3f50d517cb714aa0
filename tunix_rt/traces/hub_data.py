"""Data sets of the hub, of its local cache, or of a local folder, by the `datasets` library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from tunix_rt.config.dataset import HuggingfaceSource
from tunix_rt.errors import DataError, MachineError, MissingExtra
from tunix_rt.files import JsonObject
from tunix_rt.models.hub import COMMIT
from tunix_rt.traces.tables import arrow_row

TIMEOUT_SECONDS = 20.0
"""Timeout of the hub request that resolves a branch to a commit."""


def commit_of(source: HuggingfaceSource) -> str:
    """The commit that is read, the same throughout a process; a local folder's revision is ignored and kept."""
    if COMMIT.fullmatch(source.revision) or Path(source.name).is_dir():
        return source.revision
    try:
        return _resolved(source.name, source.revision)
    except OSError as error:
        split = source.train or source.test or "test"
        raise MachineError(
            f"{_hub_message(source, split, error)}. Where the data is cached, name its commit, which needs no "
            "network: dataset.source.revision=COMMIT"
        ) from error


@cache
def _resolved(name: str, revision: str) -> str:
    """The commit of a branch; without a network, the one in the hub's cache. Raises OSError."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        return str(HfApi().dataset_info(name, revision=revision, timeout=TIMEOUT_SECONDS).sha)
    except (HTTPError, OSError) as error:
        known = Path(HF_HUB_CACHE).expanduser() / f"datasets--{name.replace('/', '--')}"
        if (ref := known / "refs" / revision).is_file():
            return ref.read_text("utf-8")
        raise error if isinstance(error, OSError) else OSError(str(error)) from error


def hub_table(source: HuggingfaceSource, split: str) -> Iterable[JsonObject]:
    """The rows of a split as `datasets` has them. Raises MissingExtra, MachineError (no network), DataError."""
    try:
        import datasets
    except ImportError:
        raise MissingExtra(
            "dataset.source.kind=huggingface needs the package `datasets`: install the extra `huggingface`"
        ) from None
    try:
        rows: Iterable[JsonObject] = datasets.load_dataset(
            source.name, source.subset, revision=commit_of(source), split=split
        )
        return rows
    except OSError as error:
        raise MachineError(_hub_message(source, split, error)) from error
    except (ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"dataset.source: {source.name}, split {split!r}: {one_line(error)}") from error


def hub_rows(name: str, noted: Counter[str]) -> Iterator[JsonObject]:
    """The rows of the split `train` of a data set of the hub, newest commit. Raises MachineError, MissingExtra.

    `noted` counts rows that are not as the data set has them.
    """
    source = HuggingfaceSource(
        kind="huggingface",
        name=name,
        subset=None,
        revision="main",
        train="train",
        validation=None,
        test=None,
        adapter="auto",
    )
    for row in hub_table(source, "train"):
        yield arrow_row(row, noted)


def _hub_message(source: HuggingfaceSource, split: str, error: Exception) -> str:
    """What could not be fetched, why, and the workaround through a file."""
    arguments = f"{source.name!r}, {source.subset!r}, revision={source.revision!r}, split={split!r}"
    return (
        f"dataset.source: {source.name} at {source.revision}, split {split!r}, cannot be loaded "
        f"({one_line(error)}). Without a network, make a file where there is one: "
        f"python -c \"import datasets; datasets.load_dataset({arguments}).to_json('{split}.jsonl')\", "
        f"and name it: dataset=files dataset.source.train.path={split}.jsonl "
        f"dataset.source.train.adapter={source.adapter}"
    )


def one_line(error: Exception) -> str:
    """An error of a library as one line of a message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
