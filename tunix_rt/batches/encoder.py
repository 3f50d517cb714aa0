"""A trace → token ids and weights under the declared switches.

What cannot be learned comes back with its reason: whether that is an error is for the caller's switches to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np

from tunix_rt.batches.encode import encode
from tunix_rt.batches.encoded import Encoded
from tunix_rt.config.dataset import DatasetConfig
from tunix_rt.config.format import FormatConfig
from tunix_rt.errors import DataError, ModelError
from tunix_rt.files import digest, sha256_file
from tunix_rt.models.tokenizer import Tokenizer
from tunix_rt.traces.calls import rewritten
from tunix_rt.traces.format import Part, formatter
from tunix_rt.traces.trace import Trace

CUT = "overlong_truncated"
REWRITTEN = "tool calls whose arguments the chat template writes otherwise"
"""What may be changed in a trace."""


@dataclass(frozen=True, slots=True)
class Left:
    """Why a trace is not learned; `kind` names its switch, `dataset.on_<kind>` (of `unpaired`: `on_invalid`)."""

    kind: Literal["invalid", "overlong", "no_target", "unpaired"]
    reason: str


@dataclass(frozen=True, slots=True)
class Encoding:
    """How traces are encoded; plain data, which another process can be given."""

    model: Path
    """The folder with the tokenizer."""
    format: FormatConfig
    dataset: DatasetConfig
    limit: int
    """Most tokens of a trace."""
    pairs: bool = False
    """Whether the rejected completion of each trace is encoded too."""


class Encoder:
    """Encodes traces one by one."""

    def __init__(self, encoding: Encoding) -> None:
        """Raises ModelError, ConfigError, DataError: what `formatter` raises."""
        self._encoding = encoding
        self.tokenizer = Tokenizer.load(encoding.model)
        self.writer = formatter(encoding.format, self.tokenizer)

    @property
    def dataset(self) -> DatasetConfig:
        """The declared switches."""
        return self._encoding.dataset

    @property
    def pairs(self) -> bool:
        """Whether traces are encoded with `encode_pair`."""
        return self._encoding.pairs

    @cached_property
    def digest(self) -> str:
        """Of everything but the trace that its numbers depend on, the code too."""
        encoding = self._encoding
        sections = [asdict(encoding.format), asdict(encoding.dataset)]
        return digest([_code(), self.tokenizer.digest, *sections, encoding.limit, encoding.pairs])

    def encode(self, trace: Trace) -> tuple[Encoded | Left, tuple[str, ...]]:
        """The numbers of a trace, or why it has none; and what was changed in it, once for each time: `CUT`, …"""
        dataset, limit = self._encoding.dataset, self._encoding.limit
        try:
            parts = self.writer.parts(trace, dataset.steps, dataset.loss_weights.previous_turns > 0)
            encoded = encode(parts, self.tokenizer, dataset.loss_weights)
        except (DataError, ModelError) as error:
            return Left("invalid", str(error)), ()
        cut = len(encoded.ids) > limit
        if cut and dataset.on_overlong != "truncate":
            most = f"at most {limit:,} fit (dataset.max_length, model positions)"
            return Left("overlong", f"{len(encoded.ids):,} tokens, {most}"), ()
        encoded = Encoded(encoded.ids[:limit], encoded.weights[:limit], encoded.rewritten)
        if len(encoded.ids) >= 2 and bool(np.any(encoded.weights[1:] > 0)):
            return encoded, (*(CUT,) * cut, *(REWRITTEN,) * _rewritten(trace, parts), *by_tokenizer(encoded))
        return Left("no_target", "no token of it is a target (dataset.loss_weights, truncation)"), ()

    def encode_pair(self, trace: Trace) -> tuple[tuple[Encoded, Encoded] | Left, tuple[str, ...]]:
        """The numbers of a trace's completion and of its rejected one, under the same switches; else as `encode`."""
        if trace.rejected is None:
            return Left("unpaired", "no rejected completion beside it: a pair needs a loser"), ()
        both, changes = [], list[str]()
        for name, one in (("chosen", trace), ("rejected", trace.loser)):
            found, changed = self.encode(one)
            if isinstance(found, Left):
                return replace(found, reason=f"{name}: {found.reason}"), ()
            both.append(found)
            changes += changed
        if np.array_equal(both[0].ids, both[1].ids):
            return Left("no_target", "its chosen and its rejected completion are the same"), ()
        return (both[0], both[1]), tuple(changes)


def by_tokenizer(encoded: Encoded) -> tuple[str, ...]:
    """What is noted of a text that the tokenizer's own normaliser has changed."""
    return (f"texts rewritten by the tokenizer ({encoded.rewritten})",) if encoded.rewritten else ()


def _code() -> list[str]:
    package = Path(__file__).parents[1]
    return [
        sha256_file(file)
        for place in ("batches", "models", "traces")
        for file in sorted((package / place).glob("*.py"))
    ] + [version(name) for name in ("jinja2", "tokenizers")]


def _rewritten(trace: Trace, parts: Sequence[Part]) -> int:
    said = trace.conversation if trace.completion is None else (*trace.conversation, trace.completion)
    return rewritten(said, "".join(part.text for part in parts))
