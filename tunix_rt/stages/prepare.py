"""Stage `prepare`: a declared dataset and model in, checked traces, token ids and a model folder out.

The folder is complete if it has a `manifest.json`, which is written last.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tunix_rt.batches.chunks import ASKED, ENCODED, Chunk
from tunix_rt.batches.encode_all import CHUNK, encode_all
from tunix_rt.batches.encoded import REJECTED, encoded_writer
from tunix_rt.batches.encoder import Encoder, Encoding
from tunix_rt.checked import seal, sha256_of
from tunix_rt.config.choices import SPLITS, SplitName
from tunix_rt.config.dataset import DatasetConfig
from tunix_rt.config.format import FormatConfig, PlainFormat, TemplateFormat, ThinkFormat
from tunix_rt.config.model import BpeTokenizer, CharTokenizer, FreshModel, ScratchModel, TokenizerConfig
from tunix_rt.errors import DataError, ModelError
from tunix_rt.files import JsonObject, atomic_writer, digest, write_text
from tunix_rt.models.content import model_files
from tunix_rt.models.extend import with_tokens
from tunix_rt.models.folder import read_architecture, read_stop_ids
from tunix_rt.models.initialise import write_fresh
from tunix_rt.models.sources import Source, Store, materialise
from tunix_rt.models.tokenizer import Tokenizer, train_bpe, train_char
from tunix_rt.runs.secrets import mask_values
from tunix_rt.terminal import progress
from tunix_rt.traces.card import card
from tunix_rt.traces.dataset import Collected, collect, refuse
from tunix_rt.traces.format import formatter
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.traces.sources import Rejected
from tunix_rt.traces.trace import Trace

CARD = "data.md"
LEFT = {
    "unpaired": ("are no pairs", "on_invalid", "skip leaves them out"),
    "invalid": ("cannot be written for this model", "on_invalid", "skip leaves them out"),
    "overlong": ("are too long", "on_overlong", "drop leaves them out, =truncate cuts their end"),
    "no_target": ("have nothing to learn", "on_no_target", "drop leaves them out"),
}
"""Kind of a trace that is not learned → what is wrong, its switch, and what that can be."""
CHUNKS = "chunks"
"""Folder of what is encoded already, until the folder is complete: an interrupted `prepare` goes on from there."""
SWITCHES = tuple(
    "on_invalid on_duplicate on_overlap overlap_ngram on_near_duplicate on_overlong on_no_target steps".split()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareRequest:
    """What is prepared, and where."""

    seed: int
    """Seed of fresh weights (`training.seed`); the traces depend on `dataset.seed`."""
    source: FreshModel | ScratchModel | Source
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
    pairs: bool = False
    """Whether the objective learns from pairs: every trace that is learned then needs a rejected completion."""
    weights: bool = True
    """False: no weights are drawn or extended; a model folder created here then gives shapes only."""


@dataclass(slots=True)
class Tally:
    """What happened to traces while they were tokenised."""

    dropped: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    """What the chat template changed."""
    left: list[Rejected] = field(default_factory=list)
    questions: dict[str, str] = field(default_factory=dict)
    """Split → digest of its prompts and right answers, whatever the steps: equal if results can be compared."""
    answers: dict[str, JsonObject] = field(default_factory=dict)
    """Split → histogram of the token counts of the references; those that cannot be tokenised are left out."""

    def add(self, chunk: Chunk) -> None:
        """Count what became of some traces."""
        self.dropped += chunk.dropped
        self.noted += chunk.noted
        self.left += [Rejected(*left) for left in chunk.left]


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
    encoding = Encoding(start, format, dataset, min(dataset.max_length or positions, positions), request.pairs)
    encoder = Encoder(encoding)
    _refuse_endless(start, encoder.tokenizer)
    tally = Tally()
    splits: JsonObject = {}
    for split in SPLITS:
        splits[split] = _write_split(prepared, split, collected, encoder, encoding, tally)
        splits[split]["sha256"] = sha256_of(prepared.traces_file(split))
    manifest = _manifest(request, collected, tally, splits, start, encoder.tokenizer)
    write_text(folder / CARD, card(manifest))
    manifest["outputs"] = seal(folder, [CARD, *_written(folder)])
    shutil.rmtree(folder / CHUNKS, ignore_errors=True)
    prepared.write_manifest(manifest | {"digest": digest([splits, encoder.tokenizer.digest])})


def _manifest(
    request: PrepareRequest, collected: Collected, tally: Tally, splits: JsonObject, start: Path, tokenizer: Tokenizer
) -> JsonObject:
    dataset = request.dataset
    manifest: JsonObject = mask_values(collected.manifest)
    manifest["counts"]["dropped"] = dict(+tally.dropped)
    manifest["counts"]["noted"] |= dict(+tally.noted)
    manifest["rejected"] += [asdict(record) for record in tally.left]
    return manifest | {
        "name": dataset.name,
        "seed": dataset.seed,
        "switches": {name: getattr(dataset, name) for name in SWITCHES},
        "splits": splits,
        "model": {
            "folder": os.path.relpath(start, request.folder),
            "tokenizer": tokenizer.digest,
            "files": seal(start, model_files(start)) if request.weights else {},
        },
        "questions": tally.questions,
        "completion_tokens": tally.answers,
    }


def _write_split(
    prepared: PreparedData,
    split: SplitName,
    collected: Collected,
    encoder: Encoder,
    encoding: Encoding,
    tally: Tally,
) -> JsonObject:
    """Write the traces of a split and, if they are learned, their numbers; returns the counts. Raises DataError."""
    num_records, before = len(collected.records[split]), tally.dropped.copy()
    counts = Counter(dict.fromkeys(("count", "tokens", "target_tokens") if split in ENCODED else ("count",), 0))
    questions, between, answers = hashlib.sha256(), b"[", Counter[int]()
    with ExitStack() as stack:
        lines = stack.enter_context(atomic_writer(prepared.traces_file(split)))
        writers = [stack.enter_context(encoded_writer(place)) for place in _places(prepared, split, encoding)]
        bar = stack.enter_context(progress(f"prepare {split}", num_records, "traces"))
        place = prepared.folder / CHUNKS
        for chunk in encode_all(encoder, encoding, split, collected.lines(split), num_records, place):
            bar.advance(min(CHUNK, num_records - bar.done))
            lines.write(chunk.traces)
            for writer, numbers in zip(writers, (chunk.learned, chunk.rejected), strict=False):
                writer.add(chunk.names, numbers.lengths, numbers.tokens, numbers.weights)
            for question in chunk.questions:
                questions.update(between + question.encode())
                between = b", "
            counts.update(chunk.counts)
            answers.update(chunk.answers)
            tally.add(chunk)
    if split in ASKED:
        questions.update(b"]" if counts["count"] else b"[]")
        tally.questions[split] = questions.hexdigest()
        tally.answers[split] = {str(length): count for length, count in sorted(answers.items())}
    _refuse_left(encoding.dataset, split, tally, before, num_records, counts["count"])
    return dict(counts)


def _places(prepared: PreparedData, split: SplitName, encoding: Encoding) -> list[Path]:
    """The folders of the numbers of a split: of its completions, and of pairs the rejected ones."""
    if split not in ENCODED:
        return []
    place = prepared.encoded(split)
    return [place, place / REJECTED] if encoding.pairs else [place]


def _refuse_left(
    dataset: DatasetConfig, split: SplitName, tally: Tally, before: Counter[str], num_records: int, count: int
) -> None:
    """Raise DataError for traces that cannot be learned, unless their switch allows it, or if none is left."""
    for kind, (what, switch, remedy) in LEFT.items():
        reasons = [record.reason for record in tally.left if record.kind == kind]
        refuse(getattr(dataset, switch) == "error", reasons, f"{split} traces {what}", f"{switch}={remedy}")
    if num_records and not count:
        why = ", ".join(f"{number} {kind}" for kind, number in (tally.dropped - before).items())
        first = f": {tally.left[0].reason}" if tally.left else ""
        raise DataError(f"dataset {dataset.name}: nothing is left for {split} ({why} dropped{first})")


def _written(folder: Path) -> list[str]:
    """Every file of the traces and their token ids."""
    files = [file for place in ("traces", "encoded") for file in (folder / place).rglob("*") if file.is_file()]
    return sorted(file.relative_to(folder).as_posix() for file in files)


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
        learned = (one for trace in collected.traces("train") for one in _learned(trace, request.pairs))
        texts = ("".join(part.text for part in plain.parts(trace)) for trace in learned)
        model_type = source.config.get("model_type") if isinstance(source, ScratchModel) else source.family
        if isinstance(tokenizer, CharTokenizer):
            train_char(texts, tokenizer.characters, start, tokenizer.added_tokens)
        else:
            train_bpe(texts, tokenizer.vocab_size, start, tokenizer.added_tokens, model_type)
    made = Tokenizer.load(start)
    write_fresh(start, source, made.vocab_size, request.seed, made.pad_id, made.end_id, weights)
    return start


def _learned(trace: Trace, pairs: bool) -> tuple[Trace, ...]:
    """The trace, and with `pairs` the same with its rejected completion."""
    return (trace, trace.loser) if pairs and trace.rejected is not None else (trace,)


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
