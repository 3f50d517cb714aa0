"""Makes a plan: outline, estimate, a second of real training steps, verdict."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from tunix_rt.backends import registry
from tunix_rt.backends.memory import asked
from tunix_rt.backends.placement import first_device
from tunix_rt.config.model import RunModel
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.errors import DeviceError, ModelError
from tunix_rt.files import JsonObject
from tunix_rt.hints import tunix_rt
from tunix_rt.inputs import trained_by
from tunix_rt.machine import cache_folder, free_memory, usable_memory
from tunix_rt.plan.estimate import Change, Estimate, MemoryBudget, advice, estimate
from tunix_rt.plan.measure import Measured, measure
from tunix_rt.plan.outline import prepared_shapes
from tunix_rt.tracking.registry import ModelStore


@dataclass(frozen=True, slots=True)
class Plan:
    """The result of planning an experiment on a device."""

    devices: tuple[str, ...]
    estimate: Estimate
    budget: MemoryBudget
    free: int | None
    """Bytes of the host's memory that are free now; None if the run uses another device."""
    advice: list[Change]
    """Changes that would make it fit, each by itself, as overrides."""
    measured: Measured | None
    first: str | None
    """The experiment that it begins from, if that has still to run: how it is planned itself, as a command."""

    @property
    def fits(self) -> bool:
        """Whether the device holds it."""
        return self.estimate.fits(self.budget)

    @property
    def seconds(self) -> float | None:
        """Time of the training steps alone; None if not measured."""
        each = None if self.measured is None else self.measured.seconds_per_step
        return None if each is None else each * self.estimate.outline.updates.num_steps

    def to_json(self) -> JsonObject:
        """Sizes in bytes, times in seconds."""
        outline, totals = self.estimate.outline, self.estimate.totals
        updates = outline.updates
        return {
            "name": outline.config.name,
            "backend": outline.config.backend.name,
            "devices": list(self.devices),
            "parameters": {
                "total": outline.query.num_parameters,
                "trained": outline.query.num_trained,
                "active": outline.query.num_active,
            },
            "tokens_per_epoch": updates.num_tokens,
            "steps_per_epoch": updates.steps_per_epoch,
            "row_length": updates.row_length,
            "num_steps": updates.num_steps,
            "num_epochs": updates.num_epochs,
            "phases": {name: {**parts, "total": totals[name]} for name, parts in self.estimate.phases.items()},
            "activations_known": self.estimate.activations_known,
            "peak": self.estimate.peak,
            "overhead": self.budget.overhead,
            "limit": self.budget.limit,
            "free": self.free,
            "fits": self.fits,
            "advice": [list(change) for change in self.advice],
            "measured": None if self.measured is None else asdict(self.measured),
            "training_seconds": self.seconds,
            "first": self.first,
        }


def make(config: ExperimentConfig, overrides: Sequence[str], limit: int | None, measuring: bool) -> Plan:
    """Plan `config`, declared by `overrides`, on its device; `limit` replaces the device's memory (bytes).

    Raises what preparing data raises, DeviceError, MissingExtra.
    """
    import psutil

    registry.require(config.backend.name)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the process that measures needs the same device
    engine = registry.create(config.backend, config.hardware, cache_folder())
    on_host = engine.placement.platform == "cpu"
    present = usable_memory() if on_host else _device_memory(config, limit)
    budget = MemoryBudget(limit or present, int(psutil.Process().memory_info().rss) if on_host else 0)
    with prepared_shapes(config) as prepared:
        found, measured = estimate(config, prepared), None
        trains = config.training.trains
        if trains and measuring and found.fits(budget) and found.fits(MemoryBudget(present, budget.overhead)):
            measured = measure(found.outline, min(budget.limit, present) if on_host else usable_memory())
            at_least = budget.limit + 1 if measured.ended == "out of memory" else 0
            beyond = max(measured.peak, at_least) - found.totals["train"]
            budget = MemoryBudget(budget.limit, max(budget.overhead, beyond))
        return Plan(
            devices=engine.placement.devices,
            estimate=found,
            budget=budget,
            free=free_memory() if on_host else None,
            advice=[] if found.fits(budget) else advice(overrides, found, prepared, budget),
            measured=measured,
            first=_first(config),
        )


def _first(config: ExperimentConfig) -> str | None:
    """The command that plans the experiment it begins from, unless that is trained already."""
    source = config.model.source
    if not isinstance(source, RunModel):
        return None
    with suppress(ModelError):
        trained_by(config, source, ModelStore(config.tracking.uri))
        return None
    chosen = [f"+experiment={source.experiment}", f"backend={config.backend.name}", f"seed={config.seed}"]
    return tunix_rt("plan", *chosen, *source.overrides)


def _device_memory(config: ExperimentConfig, limit: int | None) -> int:
    known = asked(config.backend.name, "device_memory")
    if known is not None:
        return known(first_device(config.hardware))
    if limit is None:
        raise DeviceError(f"{config.backend.name} does not say how much memory this device has; use --memory SIZE")
    return limit
