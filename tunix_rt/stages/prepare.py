"""Stage `prepare`: a declared dataset and model in, checked traces, token ids and a model folder out.

The folder is complete if it has a `manifest.json`, which is written last.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tunix_rt.batches.encode import completion_length, encode
from tunix_rt.batches.encoded import Encoded, write_encoded
from tunix_rt.checked import seal, sha256_of
from tunix_rt.config.choices import SPLITS, SplitName
from tunix_rt.config.dataset import DatasetConfig
from tunix_rt.config.format import FormatConfig, PlainFormat, TemplateFormat, ThinkFormat
from tunix_rt.config.model import BpeTokenizer, CharTokenizer, FreshModel, ModelSource, ScratchModel, TokenizerConfig
from tunix_rt.errors import DataError, ModelError
from tunix_rt.files import JsonObject, digest, write_jsonl, write_text
from tunix_rt.models.extend import with_tokens
from tunix_rt.models.folder import read_architecture, read_stop_ids
from tunix_rt.models.initialise import write_fresh
from tunix_rt.models.sources import Store, materialise, model_files
from tunix_rt.models.tokenizer import Tokenizer, train_bpe, train_char
from tunix_rt.runs.secrets import mask_values
from tunix_rt.terminal import progress
from tunix_rt.traces.card import card
from tunix_rt.traces.dataset import collect, refuse, times_seen
from tunix_rt.traces.format import Formatter, formatter
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.traces.sources import Rejected
from tunix_rt.traces.trace import Trace

ENCODED: tuple[SplitName, ...] = ("train", "validation")
"""Splits whose completions are tokenised too: `test` is only used for prompts."""
ASKED: tuple[SplitName, ...] = ("validation", "test")
"""Splits whose prompts a model may answer (`generation.split`)."""
CARD = "data.md"
SWITCHES = ("on_invalid", "on_duplicate", "on_overlap", "on_near_duplicate", "on_overlong", "on_no_target", "steps")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareRequest:
    """What is prepared, and where."""

    seed: int
    """Seed of fresh weights (`training.seed`); the traces depend on `dataset.seed`."""
    source: ModelSource
    tokenizer: TokenizerConfig
    dataset: DatasetConfig
    format: FormatConfig
    folder: Path
    """The folder to fill (`PreparedData`)."""
    models: Path
    """Where converted models go, shared by all prepared data."""
    stop_tokens: tuple[str, ...] = ()
    """Further tokens at which generation stops."""
    store: Store | None = None
    """Where a registered model (`model.source.kind: registry`) is found."""
    weights: bool = True
    """False: no weights are drawn or extended; a model folder created here then gives shapes only."""


def prepare(request: PrepareRequest) -> None:
    """Fill the folder.

    Raises DataError, ModelError, ConfigError, MachineError, MissingExtra.
    """
    dataset, format, folder = request.dataset, request.format, request.folder
    prepared = PreparedData(folder)
    prepared.manifest_file.unlink(missing_ok=True)
    if isinstance(format, PlainFormat | ThinkFormat | TemplateFormat):
        formatter(format, None)  # refuse a format that cannot be parsed back, before reading anything
    collected = collect(dataset, format.reader)
    start = _model_folder(request, collected.splits["train"])
    reader = Tokenizer.load(start)
    _refuse_endless(start, reader)
    writer = formatter(format, reader)
    positions = read_architecture(start).max_positions
    limit = min(dataset.max_length or positions, positions)
    encoder = _Encoder(reader, writer, dataset, limit, collected.places, Counter(), [])
    splits: JsonObject = {}
    for split in SPLITS:
        traces = collected.splits[split]
        counts: JsonObject = {"count": len(traces)}
        if split in ENCODED:
            items = list(encoder.encode_all(split, traces))
            encoder.refuse_invalid(split)
            if traces and not items:
                left = ", ".join(f"{count} {kind}" for kind, count in encoder.dropped.items())
                first = f": {encoder.invalid[0].reason}" if encoder.invalid else ""
                raise DataError(f"dataset {dataset.name}: nothing is left for {split} ({left} dropped{first})")
            seen = [times_seen(trace, dataset) if split == "train" else 1 for trace, _ in items]
            encoder.dropped["weight"] += seen.count(0)
            repeated = ((t.id, item) for (t, item), times in zip(items, seen, strict=True) for _ in range(times))
            write_encoded(prepared.encoded(split), repeated)
            items = [pair for pair, times in zip(items, seen, strict=True) if times]
            traces = tuple(trace for trace, _ in items)
            counts = {
                "count": len(items),
                "tokens": sum(len(item.ids) for _, item in items),
                "target_tokens": sum(int((item.weights[1:] > 0).sum()) for _, item in items),
            }
        write_jsonl(prepared.traces_file(split), (trace.to_json() for trace in traces))
        splits[split] = counts | {"sha256": sha256_of(prepared.traces_file(split))}
    manifest: JsonObject = mask_values(collected.manifest)
    manifest["counts"]["dropped"] = dict(+encoder.dropped)
    manifest["rejected"] += [asdict(record) for record in encoder.invalid]
    manifest |= {
        "name": dataset.name,
        "seed": dataset.seed,
        "switches": {name: getattr(dataset, name) for name in SWITCHES},
        "splits": splits,
        "model": {
            "folder": os.path.relpath(start, folder),
            "tokenizer": reader.digest,
            "files": seal(start, model_files(start)) if request.weights else {},
        },
        "questions": {split: _questions(collected.splits[split]) for split in ASKED},
        "completion_tokens": {
            split: _completion_tokens(prepared.traces(split), writer, reader, dataset) for split in ASKED
        },
    }
    write_text(folder / CARD, card(manifest))
    manifest["outputs"] = seal(folder, [CARD, *_written(folder)])
    prepared.write_manifest(manifest | {"digest": digest([splits, reader.digest])})


def _written(folder: Path) -> list[str]:
    """Every file of the traces and their token ids."""
    files = [file for place in ("traces", "encoded") for file in (folder / place).rglob("*") if file.is_file()]
    return sorted(file.relative_to(folder).as_posix() for file in files)


def _questions(traces: Sequence[Trace]) -> str:
    """Digest of the prompts and right answers, whatever the steps: equal if results can be compared."""
    return digest([[trace.id, trace.asked, trace.final_answer] for trace in traces])


def _completion_tokens(
    traces: Sequence[Trace], writer: Formatter, tokenizer: Tokenizer, dataset: DatasetConfig
) -> JsonObject:
    """Histogram of the token counts of the references; those that cannot be tokenised are left out."""
    lengths: Counter[int] = Counter()
    for trace in traces:
        with suppress(DataError):
            lengths[completion_length(writer.parts(trace, dataset.steps), tokenizer)] += 1
    return {str(length): count for length, count in sorted(lengths.items())}


def _model_folder(request: PrepareRequest, traces: Sequence[Trace]) -> Path:
    """The folder of the initial weights: created here from the seed, or found and converted once."""
    source, tokenizer, folder, weights = request.source, request.tokenizer, request.folder, request.weights
    if not isinstance(source, FreshModel | ScratchModel):
        found = materialise(source, request.models, request.store)
        grown = request.models if weights else folder / "models"
        return with_tokens(found, tokenizer.added_tokens, grown, weights, request.stop_tokens)
    start = folder / "model"
    if isinstance(tokenizer, CharTokenizer | BpeTokenizer):
        plain = formatter(request.format, None)
        texts = ("".join(part.text for part in plain.parts(trace)) for trace in traces)
        if isinstance(tokenizer, CharTokenizer):
            train_char(texts, tokenizer.characters, start, tokenizer.added_tokens)
        else:
            train_bpe(texts, tokenizer.vocab_size, start, tokenizer.added_tokens)
    made = Tokenizer.load(start)
    write_fresh(start, source, made.vocab_size, request.seed, made.pad_id, made.end_id, weights)
    return start


def _refuse_endless(start: Path, tokenizer: Tokenizer) -> None:
    """Refuse an end token at which generation does not stop: the model would learn it, but never stop."""
    stop_ids = read_stop_ids(start)
    if tokenizer.end_id not in stop_ids:
        shown = ", ".join(repr(tokenizer.piece(token)) for token in stop_ids) or "no token (eos_token_id is missing)"
        end = tokenizer.end_token
        raise ModelError(
            f"{start}: the tokenizer's end token is {end!r}, but by generation_config.json or config.json generation "
            f"stops at {shown}; make it stop there too: model.stop_tokens=['{end}']"
        )


@dataclass(frozen=True, slots=True)
class _Encoder:
    """Encodes traces to token ids, applying the declared switches and counting their effects in `dropped`."""

    tokenizer: Tokenizer
    writer: Formatter
    dataset: DatasetConfig
    limit: int
    places: Mapping[str, str]
    dropped: Counter[str]
    invalid: list[Rejected]

    def encode_all(self, split: SplitName, traces: Sequence[Trace]) -> Iterator[tuple[Trace, Encoded]]:
        """Each trace that is kept, with its token ids; those that cannot be encoded go to `invalid`."""
        with progress(f"prepare {split}", len(traces), "traces") as bar:
            for trace in traces:
                try:
                    encoded = self._encoded(trace)
                except (DataError, ModelError) as error:
                    where = self.places[trace.id]
                    self.invalid.append(Rejected(where, "invalid", f"{where}: {error}"))
                    self.dropped["invalid"] += 1
                    encoded = None
                if encoded is not None:
                    yield trace, encoded
                bar.advance()

    def refuse_invalid(self, split: SplitName) -> None:
        """Raises DataError, naming the first few, if traces could not be encoded and `on_invalid` is `error`."""
        reasons = [record.reason for record in self.invalid]
        what = f"{split} traces cannot be written for this model"
        refuse(self.dataset.on_invalid == "error", reasons, what, "on_invalid=skip leaves them out")

    def _encoded(self, trace: Trace) -> Encoded | None:
        dataset = self.dataset
        parts = self.writer.parts(trace, dataset.steps, dataset.loss_weights.previous_turns > 0)
        encoded = encode(parts, self.tokenizer, dataset.loss_weights)
        if len(encoded.ids) > self.limit:
            if dataset.on_overlong == "error":
                raise DataError(
                    f"{len(encoded.ids)} tokens, at most {self.limit} fit (dataset.max_length, model positions); "
                    "dataset.on_overlong=drop leaves such traces out, =truncate cuts their end"
                )
            if dataset.on_overlong == "drop":
                self.dropped["overlong"] += 1
                return None
            self.dropped["overlong_truncated"] += 1
            encoded = Encoded(encoded.ids[: self.limit], encoded.weights[: self.limit])
        if len(encoded.ids) >= 2 and bool(np.any(encoded.weights[1:] > 0)):
            return encoded
        if dataset.on_no_target == "error":
            raise DataError(
                "no token of it is a target (dataset.loss_weights, truncation); "
                "dataset.on_no_target=drop leaves such traces out"
            )
        self.dropped["no_target"] += 1
        return None
