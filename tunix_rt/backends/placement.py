"""Which of the devices that are found a process computes on, from the section `hardware`. Framework-free."""

from __future__ import annotations

from tunix_rt.config.execution import HardwareConfig


def first_device(hardware: HardwareConfig) -> int:
    """Number of the first device that is declared."""
    return hardware.devices[0] if isinstance(hardware.devices, tuple) else 0


def as_declared(hardware: HardwareConfig) -> str:
    """The overrides that ask for these devices."""
    devices = list(hardware.devices) if isinstance(hardware.devices, tuple) else hardware.devices
    return f"hardware.platform={hardware.platform} hardware.devices={devices}"
