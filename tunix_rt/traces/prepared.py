"""A folder of prepared data: what `prepare` left for all later stages, found again by its identity.

`data/<name>/<identity>/`: `manifest.json` (written last: with it the folder is whole),
`traces/<split>.jsonl`, `encoded/<split>/`, and for a fresh model `model/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunix_rt.config.choices import SplitName
from tunix_rt.files import JsonObject, read_json, read_jsonl
from tunix_rt.traces.trace import Trace, parse_trace


@dataclass(frozen=True, slots=True)
class PreparedData:
    """Paths and readers of a prepared folder."""

    folder: Path

    @property
    def manifest_file(self) -> Path:
        return self.folder / "manifest.json"

    @property
    def is_whole(self) -> bool:
        return self.manifest_file.exists()

    @property
    def manifest(self) -> JsonObject:
        """Name, source, counts in / kept / rejected, splits with sha256 and counts, model folder."""
        return dict(read_json(self.manifest_file))

    @property
    def model_folder(self) -> Path:
        """The folder of the initial weights, tokenizer included."""
        return (self.folder / str(self.manifest["model"]["folder"])).resolve()

    def completion_tokens(self, split: SplitName) -> dict[int, int]:
        """How many references of `validation` or `test` have how many tokens, the end token included."""
        recorded = self.manifest.get("completion_tokens", {}).get(split, {})
        return {int(length): count for length, count in recorded.items()}

    def traces_file(self, split: SplitName) -> Path:
        return self.folder / "traces" / f"{split}.jsonl"

    def traces(self, split: SplitName) -> list[Trace]:
        """The traces of a split, in order of their hashes; empty where the split is."""
        file = self.traces_file(split)
        return [parse_trace(record, f"{file}:{number}") for number, record in read_jsonl(file)]

    def encoded(self, split: SplitName) -> Path:
        """The folder of a split's token ids and weights (`train` and `validation` have one)."""
        return self.folder / "encoded" / split
