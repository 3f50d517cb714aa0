"""The sources whose problems are generated: each has its module, a section of the config, and a line here."""

from __future__ import annotations

from collections.abc import Iterator

from tunix_rt.config.dataset import ArithmeticSource, GeneratedSource
from tunix_rt.traces import arithmetic, parity
from tunix_rt.traces.trace import Trace


def generate(source: GeneratedSource, seed: int) -> Iterator[Trace]:
    """The traces of a source, a pure function of its section and `dataset.seed`. Raises DataError."""
    if isinstance(source, ArithmeticSource):
        return arithmetic.generate(source, seed)
    return parity.generate(source, seed)
