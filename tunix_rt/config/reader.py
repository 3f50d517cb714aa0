"""How completions that are text are read where no reader is declared. The mappings need not be valid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tunix_rt.config.choices import PARTS, SPLITS


def with_reader(mapping: dict[str, Any]) -> dict[str, Any]:
    """`mapping` with a reader in the place of null if the source's completions are text: `auto`, or as the run is read
    whose own answers are made better or worse, since what they look like was taught there."""
    form, dataset = mapping.get("format"), mapping.get("dataset")
    source = dataset.get("source") if isinstance(dataset, Mapping) else None
    if not isinstance(form, Mapping) or not isinstance(source, Mapping) or form.get("reader") is not None:
        return mapping
    texts = any(adapter not in PARTS for adapter in _adapters(source))
    return {**mapping, "format": {**form, "reader": (_taught(mapping) or "auto") if texts else None}}


def _taught(mapping: Mapping[str, Any]) -> Any:
    """The reader of the run that an objective other than `sft` begins from, if it writes in the same format."""
    earlier: Any = mapping
    for name in ("model", "source", "config", "format"):
        earlier = earlier.get(name) if isinstance(earlier, Mapping) else None
    objective = mapping.get("objective")
    if not isinstance(earlier, Mapping) or not isinstance(objective, Mapping) or objective.get("kind") == "sft":
        return None
    same = {**earlier, "reader": None} == {**mapping["format"], "reader": None}
    return (earlier.get("reader") or "format") if same else None


def _adapters(source: Mapping[str, Any]) -> Iterator[Any]:
    """The adapters that a source, or the sources of a mixture, name."""
    mixed = source.get("sources")
    for item in mixed.values() if isinstance(mixed, Mapping) else ():
        if isinstance(item, Mapping) and isinstance(item.get("source"), Mapping):
            yield from _adapters(item["source"])
    if source.get("kind") in ("files", "jsonl", "huggingface"):
        splits = [source[split] for split in SPLITS if isinstance(source.get(split), Mapping)]
        yield from (part.get("adapter", "auto") for part in splits or [source])
