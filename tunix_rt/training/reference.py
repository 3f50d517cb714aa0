"""Log-probabilities under the model that training begins with: computed once, kept beside the prepared data.

`data/<name>/<identity>.reference/<key>/`: for each split `<split>.float32`, of the trained tokens of one sequence after
the other, and `<split>.int32`, their number in each; and `reference.json`, written last: what they were computed from,
which the key is a digest of, and the sha256 of the files. Runs that begin with the same model, on the same data, with
the same numerics, share them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tunix_rt.backends.interface import Backend, State
from tunix_rt.batches.encoded import Int32
from tunix_rt.batches.pack import Float64, Int64
from tunix_rt.batches.pairs import EncodedPairs, PairBatch, sequential_pairs
from tunix_rt.checked import damage, replaced, seal
from tunix_rt.files import JsonObject, atomic_writer, digest, read_record, write_json
from tunix_rt.models.folder import Float32
from tunix_rt.terminal import progress, warn

RECORD = "reference.json"
LENGTH = 12
"""Hex digits of a key."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The log-probabilities of the sequences of a split."""

    values: Float32
    """float32, of all trained tokens."""
    counts: Int32
    """int32 [S]: how many are each sequence's."""
    starts: Int64
    """int64 [S]: where they begin."""

    @classmethod
    def open(cls, folder: Path, split: str) -> Reference:
        """Memory-map what was written of a split."""
        counts = np.fromfile(folder / f"{split}.int32", "<i4")
        values = np.memmap(folder / f"{split}.float32", "<f4", mode="r")
        return cls(values, counts, np.cumsum(counts, dtype=np.int64) - counts)

    def of(self, batch: PairBatch) -> Float64:
        """Those of the trained tokens of a batch [N]."""
        spans = (slice(self.starts[index], self.starts[index] + self.counts[index]) for index in batch.indices)
        return np.concatenate([self.values[span] for span in spans]).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Layout:
    """How the pairs of a split are laid out in rows, which changes the last bits of what comes out."""

    row_length: int
    packing: bool
    together: int
    """Pairs that are scored together."""

    def batches(self, pairs: EncodedPairs) -> Iterator[PairBatch]:
        """Every pair once, in order."""
        return sequential_pairs(pairs, self.row_length, self.packing, self.together)


def reference_logprobs(
    place: Path,
    made_of: JsonObject,
    splits: Mapping[str, tuple[EncodedPairs, Layout]],
    engine: Backend,
    load: Callable[[], State],
) -> dict[str, Reference]:
    """The references of `splits`, none of them empty: read, or computed with the model that `load` gives.

    `made_of`: digests of that model and of the data. One process computes them, others wait; what is damaged is
    computed again.
    """
    from filelock import FileLock

    layouts = {split: asdict(layout) for split, (_, layout) in splits.items()}
    record: JsonObject = {**made_of, "backend": engine.describe(), "layouts": layouts}
    folder = place / digest(record)[:LENGTH]
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / f".{folder.name}.lock"):
        if not _is_whole(folder, record):
            with replaced(folder) as part:
                state = load()
                for split, (pairs, layout) in splits.items():
                    _compute(part, split, pairs, layout, engine, state)
                write_json(part / RECORD, record | {"files": seal(part)})
    return {split: Reference.open(folder, split) for split in splits}


def _is_whole(folder: Path, record: JsonObject) -> bool:
    found = read_record(folder / RECORD)
    files = found.pop("files", {})
    for line in damage(folder, files):
        warn(f"{line}; the reference log-probabilities are computed again")
        return False
    return found == record


def _compute(folder: Path, split: str, pairs: EncodedPairs, layout: Layout, engine: Backend, state: State) -> None:
    """Write the log-probabilities of every sequence, and the number of its trained tokens."""
    values, counts = folder / f"{split}.float32", folder / f"{split}.int32"
    with ExitStack() as stack:
        of_tokens, of_sequences = (stack.enter_context(atomic_writer(file)) for file in (values, counts))
        bar = stack.enter_context(progress(f"reference {split}", len(pairs), "pairs"))
        for batch in layout.batches(pairs):
            found = engine.fetch(engine.logprobs(state, batch.batch))["logprobs"]
            of_tokens.write(batch.taken(found).astype("<f4").tobytes())
            of_sequences.write(batch.counts.astype("<i4").tobytes())
            bar.advance(len(batch.pairs))
