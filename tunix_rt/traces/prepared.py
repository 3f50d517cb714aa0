"""A folder of prepared data: the output of `prepare` for all later stages, found again by its identity.

`data/<name>/<identity>/`: `manifest.json` (written last; it marks the folder complete), `traces/<split>.jsonl`,
`encoded/<split>/`, and for a fresh model `model/`. Each file is checked against the manifest's sha256 when it is read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tunix_rt.checked import Seal, damage
from tunix_rt.config.choices import SplitName
from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject, digest, read_json, read_jsonl, to_json, write_json
from tunix_rt.traces.recorded import parse_trace
from tunix_rt.traces.trace import Trace

SEAL = "manifest_sha256"
"""Manifest key: the digest of everything else in the manifest."""


def left_out(counts: JsonObject) -> dict[str, int]:
    """How many records were left out, by reason, before and while they were tokenised."""
    return dict(Counter(counts.get("rejected", {})) + Counter(counts.get("dropped", {})))


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
        """Name, source, counts in / kept / rejected, splits with sha256 and counts, files, model folder and its files.

        Raises DataError if it is damaged.
        """
        found = read_json(self.manifest_file, self._remedy)
        if not isinstance(found, dict):
            raise DataError(f"{self.manifest_file}: expected a JSON object; {self._remedy}")
        sealed = found.pop(SEAL, None)
        if sealed not in (None, digest(found)):
            raise DataError(f"{self.manifest_file}: damaged (its {SEAL} is that of another text); {self._remedy}")
        return found

    @property
    def is_mixture(self) -> bool:
        """Whether the traces come from several sources, named in `meta.dataset`."""
        return bool(self.manifest["source"].get("kind") == "mixture")

    def write_manifest(self, manifest: JsonObject) -> None:
        """Complete the folder: write `manifest`, with its own digest."""
        write_json(self.manifest_file, manifest | {SEAL: digest(json.loads(to_json(manifest)))})

    @property
    def _remedy(self) -> str:
        return f"remove {self.folder}, and the same command prepares it again"

    @property
    def model_folder(self) -> Path:
        """The folder of the initial weights, tokenizer included. Raises DataError naming a file that changed."""
        model = self.manifest["model"]
        folder = self.folder / str(model["folder"])
        beside = ".." in folder.parts
        back = f"put the model back as it was when {self.folder} was prepared with it (fetch or convert it again)"
        for line in damage(folder.resolve() if beside else folder, model.get("files", {})):
            raise DataError(f"{line}; {back if beside else self._remedy}")
        return folder.resolve()

    def completion_tokens(self, split: SplitName) -> dict[int, int]:
        """Histogram of the references of `validation` or `test` by number of tokens, the end token included."""
        recorded = self.manifest.get("completion_tokens", {}).get(split, {})
        return {int(length): count for length, count in recorded.items()}

    def traces_file(self, split: SplitName) -> Path:
        return self.folder / "traces" / f"{split}.jsonl"

    def traces(self, split: SplitName) -> list[Trace]:
        """The traces of a split, in order of their hashes; empty if the split is. Raises DataError if damaged."""
        return list(self.each_trace(split))

    def each_trace(self, split: SplitName) -> Iterator[Trace]:
        """The same, one after the other."""
        self._check(f"traces/{split}.jsonl")
        file = self.traces_file(split)
        return (parse_trace(record, f"{file}:{number}") for number, record in read_jsonl(file))

    def encoded(self, split: SplitName) -> Path:
        """The folder of token ids and weights (of `train` and `validation`). Raises DataError if a file is damaged."""
        self._check(f"encoded/{split}/")
        return self.folder / "encoded" / split

    @property
    def encoded_digest(self) -> str:
        """Of all token ids and weights."""
        return digest({name: seal["sha256"] for name, seal in self._files().items() if name.startswith("encoded/")})

    def _check(self, name: str) -> None:
        """Check the files whose path begins with `name`; before the manifest is written there is nothing to check."""
        if self.is_whole:
            files = {file: sealed for file, sealed in self._files().items() if file.startswith(name)}
            for line in damage(self.folder, files):
                raise DataError(f"{line}; {self._remedy}")

    def _files(self) -> dict[str, Seal]:
        """Every file but those of the model; empty for data prepared by an earlier version."""
        return dict(self.manifest.get("outputs", {}))

    def damage(self, full: bool = False) -> list[str]:
        """What has changed since it was prepared: a line per file, starting with its name; `full`: read every byte."""
        try:
            model = self.manifest["model"]
        except DataError as error:
            return [str(error).removesuffix(f"; {self._remedy}")]
        found = damage(self.folder, self._files(), full)
        return found + damage(self.folder / str(model["folder"]), model.get("files", {}), full)

    def difference(self, other: PreparedData) -> str | None:
        """The first file that differs in data prepared again; None if none does, or no digests are recorded here."""
        try:
            before, now = self._seals(), other._seals()
        except DataError:
            return None
        return next((name for name in before if before[name] != now.get(name)), None)

    def _seals(self) -> dict[str, Seal]:
        model = self.manifest["model"].get("files", {})
        return self._files() | {f"model/{name}": sealed for name, sealed in model.items()}
