"""Mistakes in the data of an experiment, found before the model that it begins from is trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from tunix_rt.config.choices import ReaderName
from tunix_rt.config.dataset import DatasetConfig, GeneratedSource
from tunix_rt.traces.dataset import collect, refuse
from tunix_rt.traces.sources import parts_of
from tunix_rt.traces.spool import Spooled
from tunix_rt.traces.trace import Trace


def check_traces(dataset: DatasetConfig, reader: ReaderName | None, pairs: bool) -> None:
    """Read the files of a dataset and check what does not depend on a model; generated problems have no mistakes.

    `pairs`: each trace that is learned needs a rejected completion. Raises what `collect` raises, and DataError.
    """
    if all(isinstance(part.source, GeneratedSource) for part in parts_of(dataset.source)):
        return
    with TemporaryDirectory() as folder:
        records = collect(dataset, reader, Path(folder)).records
        learned = [*records["train"], *records["validation"]] if pairs else []
        examples = [f"{record.where}: {problem}" for record in learned for problem in _problems(record)]
    refuse(dataset.on_invalid == "error", examples, "traces are no pairs", "on_invalid=skip leaves them out")


def _problems(record: Spooled) -> Iterator[str]:
    trace = record.trace
    if trace.rejected is None:
        yield "no rejected completion beside it"
    elif _said(trace.loser) == _said(trace):
        yield "chosen and rejected are the same"


def _said(trace: Trace) -> object:
    """What is learned of it: its completion, or the parts that a format makes one of."""
    return trace.completion or ([step.content for step in trace.steps], trace.final_answer)
