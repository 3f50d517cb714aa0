"""Stage `prepare`: a declared dataset and model in, checked traces, token ids and a model folder out.

The folder is complete if it has a `manifest.json`, which is written last.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from tunix_rt.batches.encode import completion_length
from tunix_rt.batches.encoded import Encoded, write_encoded
from tunix_rt.batches.encoder import CUT, REWRITTEN, Encoder, Encoding, Left, encode_all
from tunix_rt.checked import seal, sha256_of
from tunix_rt.config.choices import SPLITS, SplitName
from tunix_rt.config.dataset import DatasetConfig
from tunix_rt.config.format import FormatConfig, PlainFormat, TemplateFormat, ThinkFormat
from tunix_rt.config.model import BpeTokenizer, CharTokenizer, FreshModel, ModelSource, ScratchModel, TokenizerConfig
from tunix_rt.errors import DataError, ModelError
from tunix_rt.files import JsonObject, atomic_writer, digest, to_json, write_jsonl, write_text
from tunix_rt.models.extend import with_tokens
from tunix_rt.models.folder import read_architecture, read_stop_ids
from tunix_rt.models.initialise import write_fresh
from tunix_rt.models.sources import Store, materialise, model_files
from tunix_rt.models.tokenizer import Tokenizer, train_bpe, train_char
from tunix_rt.runs.secrets import mask_values
from tunix_rt.terminal import progress
from tunix_rt.traces.card import card
from tunix_rt.traces.dataset import Collected, collect, refuse, times_seen
from tunix_rt.traces.format import formatter
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.traces.sources import Rejected
from tunix_rt.traces.trace import Trace

ENCODED: tuple[SplitName, ...] = ("train", "validation")
"""Splits whose completions are tokenised too: `test` is only used for prompts."""
ASKED: tuple[SplitName, ...] = ("validation", "test")
"""Splits whose prompts a model may answer (`generation.split`)."""
CARD = "data.md"
LEFT = {
    "invalid": ("cannot be written for this model", "skip leaves them out"),
    "overlong": ("are too long", "drop leaves them out, =truncate cuts their end"),
    "no_target": ("have nothing to learn", "drop leaves them out"),
}
"""Kind of a trace that is not learned → what is wrong, and what its switch can be."""
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


@dataclass(slots=True)
class Tally:
    """What happened to traces while they were tokenised."""

    dropped: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    """What the chat template changed."""
    left: list[Rejected] = field(default_factory=list)


def prepare(request: PrepareRequest) -> None:
    """Fill the folder.

    Raises DataError, ModelError, ConfigError, MachineError, MissingExtra.
    """
    dataset, format, folder = request.dataset, request.format, request.folder
    prepared = PreparedData(folder)
    prepared.manifest_file.unlink(missing_ok=True)
    if isinstance(format, PlainFormat | ThinkFormat | TemplateFormat):
        formatter(format, None)  # refuse a format that cannot be parsed back, before reading anything
    folder.mkdir(parents=True, exist_ok=True)
    collected = collect(dataset, format.reader, folder)
    start = _model_folder(request, collected)
    positions = read_architecture(start).max_positions
    encoding = Encoding(start, format, dataset, min(dataset.max_length or positions, positions))
    encoder = Encoder(encoding)
    _refuse_endless(start, encoder.tokenizer)
    tally, splits = Tally(), {}
    for split in SPLITS:
        write = _write_encoded if split in ENCODED else _write_traces
        splits[split] = write(prepared, split, collected, encoder, encoding, tally)
        splits[split]["sha256"] = sha256_of(prepared.traces_file(split))
    manifest: JsonObject = mask_values(collected.manifest)
    manifest["counts"]["dropped"] = dict(+tally.dropped)
    manifest["counts"]["noted"] |= dict(+tally.noted)
    manifest["rejected"] += [asdict(record) for record in tally.left]
    manifest |= {
        "name": dataset.name,
        "seed": dataset.seed,
        "switches": {name: getattr(dataset, name) for name in SWITCHES},
        "splits": splits,
        "model": {
            "folder": os.path.relpath(start, folder),
            "tokenizer": encoder.tokenizer.digest,
            "files": seal(start, model_files(start)) if request.weights else {},
        },
        "questions": {split: _questions(prepared.traces(split)) for split in ASKED},
        "completion_tokens": {split: _completion_tokens(prepared.traces(split), encoder, dataset) for split in ASKED},
    }
    write_text(folder / CARD, card(manifest))
    manifest["outputs"] = seal(folder, [CARD, *_written(folder)])
    prepared.write_manifest(manifest | {"digest": digest([splits, encoder.tokenizer.digest])})


def _write_traces(prepared: PreparedData, split: SplitName, collected: Collected, *_: object) -> JsonObject:
    """Write the traces of a split that is only asked; returns their number."""
    write_jsonl(prepared.traces_file(split), (trace.to_json() for trace in collected.traces(split)))
    return {"count": len(collected.records[split])}


def _write_encoded(
    prepared: PreparedData,
    split: SplitName,
    collected: Collected,
    encoder: Encoder,
    encoding: Encoding,
    tally: Tally,
) -> JsonObject:
    """Write the traces of a split and their numbers, one after the other; returns the counts. Raises DataError."""
    dataset, records = encoding.dataset, collected.records[split]
    dropped, left = tally.dropped, tally.left
    counts, before = Counter(count=0, tokens=0, target_tokens=0), dropped.copy()

    def kept(lines: IO[bytes]) -> Iterator[tuple[str, Encoded]]:
        with progress(f"prepare {split}", len(records), "traces") as bar:
            outcomes = encode_all(encoder, encoding, collected.traces(split), len(records))
            for record, (trace, found, changes) in zip(records, outcomes, strict=True):
                bar.advance()
                if isinstance(found, Left):
                    dropped[found.kind] += 1
                    left.append(Rejected(record.where, found.kind, f"{record.where}: {found.reason}"))
                    continue
                dropped[CUT] += changes.count(CUT)
                tally.noted[REWRITTEN] += changes.count(REWRITTEN)
                times = times_seen(trace, dataset) if split == "train" else 1
                dropped["weight"] += not times
                if times:
                    lines.write(f"{to_json(trace.to_json())}\n".encode())
                    targets = int((found.weights[1:] > 0).sum())
                    counts.update(count=1, tokens=times * len(found.ids), target_tokens=times * targets)
                yield from [(trace.id, found)] * times

    with atomic_writer(prepared.traces_file(split)) as lines:
        write_encoded(prepared.encoded(split), kept(lines))
    for kind, (what, remedy) in LEFT.items():
        reasons = [record.reason for record in left if record.kind == kind]
        refuse(getattr(dataset, f"on_{kind}") == "error", reasons, f"{split} traces {what}", f"on_{kind}={remedy}")
    if records and not counts["count"]:
        why = ", ".join(f"{count} {kind}" for kind, count in (dropped - before).items())
        first = f": {left[0].reason}" if left else ""
        raise DataError(f"dataset {dataset.name}: nothing is left for {split} ({why} dropped{first})")
    return dict(counts)


def _written(folder: Path) -> list[str]:
    """Every file of the traces and their token ids."""
    files = [file for place in ("traces", "encoded") for file in (folder / place).rglob("*") if file.is_file()]
    return sorted(file.relative_to(folder).as_posix() for file in files)


def _questions(traces: Sequence[Trace]) -> str:
    """Digest of the prompts and right answers, whatever the steps: equal if results can be compared."""
    return digest([[trace.id, trace.asked, trace.final_answer] for trace in traces])


def _completion_tokens(traces: Sequence[Trace], encoder: Encoder, dataset: DatasetConfig) -> JsonObject:
    """Histogram of the token counts of the references; those that cannot be tokenised are left out."""
    lengths: Counter[int] = Counter()
    for trace in traces:
        with suppress(DataError):
            lengths[completion_length(encoder.writer.parts(trace, dataset.steps), encoder.tokenizer)] += 1
    return {str(length): count for length, count in sorted(lengths.items())}


def _model_folder(request: PrepareRequest, collected: Collected) -> Path:
    """The folder of the initial weights: created here from the seed, or found and converted once."""
    source, tokenizer, folder, weights = request.source, request.tokenizer, request.folder, request.weights
    if not isinstance(source, FreshModel | ScratchModel):
        found = materialise(source, request.models, request.store)
        grown = request.models if weights else folder / "models"
        return with_tokens(found, tokenizer.added_tokens, grown, weights, request.stop_tokens)
    start = folder / "model"
    if isinstance(tokenizer, CharTokenizer | BpeTokenizer):
        plain = formatter(request.format, None)
        texts = ("".join(part.text for part in plain.parts(trace)) for trace in collected.traces("train"))
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
