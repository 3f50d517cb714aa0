"""Checks before training that there are prompts to ask, and that their answers fit into `max_new_tokens`."""

from __future__ import annotations

from tunix_rt.config.choices import SplitName
from tunix_rt.config.results import GenerationConfig
from tunix_rt.errors import DataError
from tunix_rt.terminal import warn
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.traces.trace import Trace


def asked(prepared: PreparedData, split: SplitName) -> list[Trace]:
    """The traces whose prompts are asked. Raises DataError if there are none."""
    traces = prepared.traces(split)
    if not traces:
        raise DataError(
            f"{prepared.folder}: the {split} split is empty; raise dataset.split.{split}, "
            "give it a file, or choose another generation.split"
        )
    return traces


def check_asked(prepared: PreparedData, generation: GenerationConfig) -> None:
    """Warn about references longer than `max_new_tokens`. Raises DataError if there is nothing to ask."""
    asked(prepared, generation.split)
    lengths, most = prepared.completion_tokens(generation.split), generation.max_new_tokens
    total, longer = sum(lengths.values()), sum(count for length, count in lengths.items() if length > most)
    if longer:
        warn(
            f"generation.max_new_tokens={most}: {longer} of {total} {generation.split} references "
            f"({100 * longer / total:.0f} %) are longer (longest {max(lengths)} tokens); an answer as long as these is "
            "cut off and cannot be right"
        )
