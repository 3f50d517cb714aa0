"""A plan from beginning to end: outline, estimate, verdict, and a second of real work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunix_rt.backends import registry
from tunix_rt.backends.memory import device_memory, model_of
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.files import JsonObject
from tunix_rt.inputs import cache_folder
from tunix_rt.plan.estimate import Change, Estimate, Room, advice, estimate
from tunix_rt.plan.measure import Measured, measure
from tunix_rt.plan.outline import prepared_shapes


@dataclass(frozen=True, slots=True)
class Plan:
    """What there is to say."""

    devices: tuple[str, ...]
    estimate: Estimate
    room: Room
    advice: list[Change]
    """Changes that would make it fit, each by itself, as overrides."""
    measured: Measured | None

    @property
    def fits(self) -> bool:
        """Whether the device holds it."""
        return self.estimate.fits(self.room)

    @property
    def seconds(self) -> float | None:
        """Of the training steps alone."""
        return None if self.measured is None else self.measured.seconds_per_step * self.estimate.outline.num_steps

    def to_json(self) -> JsonObject:
        """Sizes in bytes, times in seconds."""
        outline, measured = self.estimate.outline, self.measured
        return {
            "name": outline.config.name,
            "backend": outline.config.backend.name,
            "devices": list(self.devices),
            "parameters": {"total": outline.work.num_parameters, "trained": outline.work.num_trained},
            "tokens_per_epoch": outline.num_tokens,
            "steps_per_epoch": outline.steps_per_epoch,
            "row_length": outline.row_length,
            "num_steps": outline.num_steps,
            "num_epochs": outline.num_epochs,
            "phases": {phase.name: {**phase.parts, "total": phase.total} for phase in self.estimate.phases},
            "peak": self.estimate.peak,
            "resident_after_import": self.room.resident,
            "limit": self.room.limit,
            "fits": self.fits,
            "advice": [list(change) for change in self.advice],
            "measured": None if measured is None else {"num_steps": measured.num_steps, "seconds": measured.seconds},
            "training_seconds": self.seconds,
        }


def make(config: ExperimentConfig, overrides: Sequence[str], limit: int | None, measuring: bool) -> Plan:
    """Plan `config`, which `overrides` declare, on the device that it names; `limit`: as if that had so many bytes.

    Raises what preparing data raises, DeviceError, MissingExtra, InputError (a backend without a memory model).
    """
    registry.require(config.backend.name)
    model_of(config.backend.name)
    engine = registry.create(config.backend, config.hardware, cache_folder())
    room = _room(engine.placement.platform, config, limit)
    with prepared_shapes(config) as prepared:
        found = estimate(config, prepared)
        fits = found.fits(room)
        return Plan(
            devices=engine.placement.devices,
            estimate=found,
            room=room,
            advice=[] if fits else advice(overrides, found, prepared, room),
            measured=measure(engine, found.outline) if measuring and fits else None,
        )


def _room(platform: str, config: ExperimentConfig, limit: int | None) -> Room:
    """On the host the process itself takes room; a device's memory is the model's alone."""
    import psutil

    if platform == "cpu":
        return Room(limit or psutil.virtual_memory().total, psutil.Process().memory_info().rss)
    return Room(limit or device_memory(config.backend.name)(config.hardware.device), 0)
