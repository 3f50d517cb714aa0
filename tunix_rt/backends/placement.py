"""Which of the devices that are found a process computes on, from the section `hardware`. Framework-free."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from tunix_rt.backends.processes.world import World
from tunix_rt.config.execution import HardwareConfig, MeshConfig


def first_device(hardware: HardwareConfig) -> int:
    """Number of the first device that is declared."""
    return hardware.devices[0] if isinstance(hardware.devices, tuple) else 0


def own_device(hardware: HardwareConfig, world: World, environment: Mapping[str, str] = os.environ) -> int:
    """Number of the device of this process, where each device has a process.

    A launcher may show each process its own device alone (`srun --gpus-per-task 1`): that is number 0.
    """
    if isinstance(hardware.devices, tuple):
        return hardware.devices[world.local_rank]
    shown = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return 0 if len(shown) == 1 and world.size > 1 else world.local_rank


def on_one_device(hardware: HardwareConfig) -> HardwareConfig:
    """The first of the devices alone."""
    devices = hardware.devices[:1] if isinstance(hardware.devices, tuple) else 1
    return replace(hardware, devices=devices, mesh=MeshConfig(data=-1, shard=1, tensor=1))


def substitutes(hardware: HardwareConfig) -> list[HardwareConfig]:
    """What a finished model can be asked on where `hardware` is not there, the nearest first: the same devices, each
    with the whole model; one of them; one of any kind."""
    one = on_one_device(hardware)
    copies = replace(hardware, mesh=one.mesh)
    return [copies, replace(one, devices=1), replace(one, devices=1, platform="auto")]


def as_declared(hardware: HardwareConfig) -> str:
    """The overrides that ask for these devices."""
    devices = list(hardware.devices) if isinstance(hardware.devices, tuple) else hardware.devices
    return f"hardware.platform={hardware.platform} hardware.devices={devices}"
