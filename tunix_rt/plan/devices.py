"""The devices that an experiment is planned for, which need not be here if their memory is given."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import psutil

from tunix_rt.backends import registry
from tunix_rt.backends.memory import asked
from tunix_rt.backends.placement import first_device, on_one_device
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.errors import DeviceError
from tunix_rt.machine import cache_folder, usable_memory
from tunix_rt.plan.estimate import Estimate, MemoryBudget

NOT_HERE = "to plan for devices that are not here give their memory and number: --memory 80GB hardware.devices=8"


@dataclass(frozen=True, slots=True)
class Devices:
    """So many devices of one kind, and the memory of each."""

    names: tuple[str, ...]
    """Empty: there are none here."""
    number: int
    budget: MemoryBudget
    present: int
    """Bytes of one device that is here, whatever memory it is planned for; of devices on the host, one's part."""

    @property
    def on_host(self) -> bool:
        """Whether they are parts of the host, which share its memory."""
        return self.budget.platform == "cpu"

    @property
    def measurable(self) -> int:
        """Bytes that the processes which measure may take of the host, all together."""
        return min(self.budget.limit, self.present) * self.number if self.on_host else usable_memory()

    def hold(self, found: Estimate) -> bool:
        """Whether a step can be tried: it fits by estimate, into what is planned for and into what is here."""
        here = replace(self.budget, limit=self.present)
        return bool(self.names) and found.fits(self.budget) and found.fits(here)


def find_devices(config: ExperimentConfig, limit: int | None) -> Devices:
    """The devices of `config`; `limit` replaces the memory of each (bytes). Starts no other process.

    Raises DeviceError: there are none, or their memory is not known, and it is not given; MissingExtra.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the process that measures needs the same device
    hardware, declared = config.hardware, config.hardware.num_devices
    try:
        number = registry.num_devices(config.backend, hardware)
        placement = registry.create(config.backend, on_one_device(hardware), cache_folder()).placement
    except DeviceError as error:
        if limit is None or declared is None:
            raise DeviceError(f"{error}; {NOT_HERE}") from None
        return Devices((), declared, MemoryBudget(limit, 0, hardware.platform), 0)
    number = number or len(placement.devices)
    if placement.platform != "cpu":
        present = _device_memory(config, limit)
        return Devices(placement.devices, number, MemoryBudget(limit or present, 0, placement.platform), present)
    present, held = usable_memory(), int(psutil.Process().memory_info().rss)
    budget = MemoryBudget(limit or present // number, held, "cpu", shared=None if limit else present)
    return Devices(placement.devices, number, budget, present // number)


def _device_memory(config: ExperimentConfig, limit: int | None) -> int:
    known = asked(config.backend.name, "device_memory")
    if known is not None:
        return known(first_device(config.hardware))
    if limit is None:
        raise DeviceError(f"{config.backend.name} does not say how much memory this device has; use --memory SIZE")
    return limit
