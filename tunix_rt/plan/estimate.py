"""Whether an experiment fits into memory, and which change of a setting would make it fit.

In: a config's overrides. Out: an `Estimate`. An advice is only given when the changed experiment, estimated the same
way, fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunix_rt.backends.memory import Phase, model_of
from tunix_rt.config.load import check, compose
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.errors import InputError
from tunix_rt.plan.outline import Outline, outline
from tunix_rt.traces.prepared import PreparedData

Change = tuple[str, ...]
"""Overrides that go together."""


@dataclass(frozen=True, slots=True)
class Room:
    """The memory of a device, in bytes."""

    limit: int
    resident: int
    """What the process holds after import, before anything is loaded."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run takes."""

    outline: Outline
    phases: tuple[Phase, ...]

    @property
    def largest(self) -> Phase:
        """The phase that decides."""
        return max(self.phases, key=lambda phase: phase.total)

    @property
    def peak(self) -> int:
        """Most bytes above what is resident after import."""
        return self.largest.total

    def fits(self, room: Room) -> bool:
        """Whether all of it has room."""
        return room.resident + self.peak <= room.limit


def estimate(config: ExperimentConfig, prepared: PreparedData) -> Estimate:
    """The estimate of `config` on data that are prepared. Raises InputError where the backend has no memory model."""
    found = outline(config, prepared)
    return Estimate(found, tuple(model_of(config.backend.name)(found.work)))


def advice(overrides: Sequence[str], found: Estimate, prepared: PreparedData, room: Room) -> list[Change]:
    """Changes that make the experiment fit, each by itself; where none does alone, one of several that do together.

    Empty: nothing of this kind helps.
    """

    def fits(changes: Sequence[Change]) -> bool:
        return _fits(overrides, _joined(changes), prepared, room)

    changes = list(_changes(found, room))
    alone = [change for change in changes if fits([change])]
    if alone or not changes or not fits(changes):
        return alone
    for change in changes:  # what is not needed goes
        fewer = [other for other in changes if other is not change]
        changes = fewer if fits(fewer) else changes
    return [_joined(changes)]


def _joined(changes: Sequence[Change]) -> Change:
    """All changes; where some set the same, the last counts."""
    return tuple({text.partition("=")[0]: text for change in changes for text in change}.values())


def _fits(overrides: Sequence[str], change: Change, prepared: PreparedData, room: Room) -> bool:
    """Whether the changed experiment has room; one that may not be declared so does not."""
    groups = {text.partition("=")[0] for text in change if "/" in text.partition("=")[0]}
    kept = [text for text in overrides if text.partition("=")[0] not in groups]
    try:
        return estimate(check(compose([*kept, *change])), prepared).fits(room)
    except InputError:
        return False


def _changes(found: Estimate, room: Room) -> Iterator[Change]:
    """What may help, as overrides; an update sees as many rows as before."""
    config = found.outline.config
    over = {phase.name for phase in found.phases if room.resident + phase.total > room.limit}
    rows, accumulated = config.training.per_device_batch_size, config.training.gradient_accumulation_steps
    if "train" in over and not config.backend.gradient_checkpointing:
        yield ("backend.gradient_checkpointing=true",)
    if over & {"train", "evaluate"} and rows > 1:
        fewer = max(size for size in range(1, rows) if rows % size == 0)
        for size in dict.fromkeys((fewer, 1)):
            yield (
                f"training.per_device_batch_size={size}",
                f"training.gradient_accumulation_steps={accumulated * rows // size}",
            )
    if "predict" in over and config.generation.batch_size > 1:
        for size in dict.fromkeys((config.generation.batch_size // 2, 1)):
            yield (f"generation.batch_size={size}",)
    if config.backend.precision == "float32":
        yield ("backend.precision=bfloat16",)
    if config.model.adapter is None:
        yield ("model/adapter=lora",)
