"""Which of the devices that are found a process computes on, from the section `hardware`. Framework-free."""

from __future__ import annotations

from tunix_rt.backends.processes.world import World
from tunix_rt.config.execution import HardwareConfig


def first_device(hardware: HardwareConfig) -> int:
    """Number of the first device that is declared."""
    return hardware.devices[0] if isinstance(hardware.devices, tuple) else 0


def own_device(hardware: HardwareConfig, world: World, found: int) -> int:
    """Number of the device of this process, where each device has one; `found`: how many it sees.

    A launcher may show each process its own device alone (`srun --gpus-per-task 1`): that is number 0.
    """
    if isinstance(hardware.devices, tuple):
        return hardware.devices[world.local_rank]
    return 0 if found == 1 else world.local_rank


def as_declared(hardware: HardwareConfig) -> str:
    """The overrides that ask for these devices."""
    devices = list(hardware.devices) if isinstance(hardware.devices, tuple) else hardware.devices
    return f"hardware.platform={hardware.platform} hardware.devices={devices}"
