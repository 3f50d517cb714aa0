"""Makes a plan: outline, estimate, a second of real training steps, verdict."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace

from tunix_rt.backends import registry
from tunix_rt.config.model import RunModel
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.errors import ModelError
from tunix_rt.files import JsonObject
from tunix_rt.hints import tunix_rt
from tunix_rt.inputs import trained_by
from tunix_rt.machine import free_memory
from tunix_rt.plan.advice import Change, advice
from tunix_rt.plan.devices import find_devices
from tunix_rt.plan.estimate import Estimate, MemoryBudget, estimate, with_rows
from tunix_rt.plan.measure import Measure, Measured, measuring
from tunix_rt.plan.outline import prepared_shapes
from tunix_rt.plan.traffic import Traffic, traffic
from tunix_rt.precision import decided, slower_than_float32
from tunix_rt.tracking.registry import ModelStore


@dataclass(frozen=True, slots=True)
class Plan:
    """The result of planning an experiment on its devices."""

    devices: tuple[str, ...]
    """Empty: they are not here, but were planned for."""
    estimate: Estimate
    budget: MemoryBudget
    free: int | None
    """Bytes of the host's memory that are free now; None if the run uses another device."""
    advice: list[Change]
    """Changes that would make it fit, each by itself, as overrides."""
    measured: Measured | None
    first: str | None
    """The experiment that it begins from, if that has still to run: how it is planned itself, as a command."""
    slower: str | None
    """Measured rates, if bfloat16 is declared and float32 is the faster one."""

    @property
    def fits(self) -> bool:
        """Whether the devices hold it."""
        return self.estimate.fits(self.budget)

    @property
    def seconds(self) -> float | None:
        """Time of the training steps alone; None if not measured."""
        each = None if self.measured is None else self.measured.seconds_per_step
        return None if each is None else each * self.estimate.outline.updates.num_steps

    @property
    def sent(self) -> Traffic:
        """What a device sends to others in a step."""
        outline = self.estimate.outline
        if not outline.config.training.trains:
            return Traffic(0, 0, 0, 0)
        return traffic(outline.query, self.estimate.fold, outline.updates.row_length)

    def to_json(self) -> JsonObject:
        """Sizes in bytes, times in seconds."""
        outline, totals = self.estimate.outline, self.estimate.totals
        updates = outline.updates
        return {
            "name": outline.config.name,
            "backend": outline.config.backend.name,
            "devices": list(self.devices),
            "mesh": asdict(outline.query.mesh),
            "rows": asdict(self.estimate.fold) | {"empty_rows": self.estimate.fold.empty_rows},
            "sent_per_step": asdict(self.sent),
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


def make(config: ExperimentConfig, overrides: Sequence[str], limit: int | None, measures: bool) -> Plan:
    """Plan `config`, declared by `overrides`, on its devices; `limit` replaces the memory of each (bytes).

    Raises what preparing data raises, DeviceError, MissingExtra.
    """
    registry.require(config.backend.name)
    config = decided(config)
    devices = find_devices(config, limit)
    budget = devices.budget
    with ExitStack() as stack:
        measure: Measure | None = None
        if measures and config.training.trains and devices.names:
            measure = stack.enter_context(measuring(config))
        prepared = stack.enter_context(prepared_shapes(config))
        found, measured = estimate(config, prepared, devices.number, budget), None
        if measure is not None and devices.hold(found):
            measured = measure(found.outline, devices.measurable)
            if measured.rows_at_once != found.outline.query.rows_at_once and measured.ended == "done":
                found = with_rows(found.outline, measured.rows_at_once)
            at_least = budget.limit + 1 if measured.ended == "out of memory" else 0
            beyond = max(measured.peak, at_least) - found.totals["train"]
            budget = replace(budget, overhead=max(budget.overhead, beyond))
        return Plan(
            devices=devices.names,
            estimate=found,
            budget=budget,
            free=free_memory() if devices.on_host else None,
            advice=[] if found.fits(budget) else advice(overrides, found, prepared, budget),
            measured=measured,
            first=_first(config),
            slower=slower_than_float32(config, budget.platform) if measures else None,
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
