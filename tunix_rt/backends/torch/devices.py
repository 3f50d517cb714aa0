"""Where the torch backend computes: device, threads, precision; memory failures as one clear line.

In: the section `hardware` and the declared precision. Out: the devices found. Independent of the model.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from tunix_rt.backends.interface import Placement
from tunix_rt.backends.mesh import MeshShape
from tunix_rt.backends.placement import as_declared, own_device
from tunix_rt.backends.processes.world import World
from tunix_rt.backends.torch.mesh import Axis
from tunix_rt.config.choices import Precision
from tunix_rt.config.execution import HardwareConfig
from tunix_rt.errors import DeviceError, OutOfMemory

NAME_LENGTH = 128
"""Bytes of a device's name, at most."""


def select(hardware: HardwareConfig, world: World) -> torch.device:
    """The device that `hardware` names; sets torch's threads. Raises DeviceError listing those present."""
    torch.set_num_threads(world.threads(hardware.threads))
    platform = _platform(hardware)
    present = _present(world.local_size)
    found = len(present.get(platform, []))
    wanted = own_device(hardware, world)
    if wanted >= found:
        raise _not_there(hardware, present)
    if platform == "cpu":
        return torch.device("cpu")
    # On CUDA some kernels add in any order; on the CPU those used here are deterministic already.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.cuda.set_device(wanted)
    return torch.device("cuda", wanted)


def num_devices(hardware: HardwareConfig, launched: World) -> int:
    """Those that are declared, or found if `all` are; under a launcher one for each process. Raises DeviceError if one
    of this machine is not there. A processor has as many as one likes.
    """
    size = launched.size if launched.size > 1 else hardware.num_devices
    here = launched.local_size if launched.size > 1 else hardware.num_devices
    present = _present(here or 1)
    found = len(present[_platform(hardware)])
    last = replace(launched, local_rank=(here or max(1, found)) - 1)
    if own_device(hardware, last) >= found:
        raise _not_there(hardware, present)
    return size or max(1, found)


def _present(num_processes: int = 1) -> dict[str, list[str]]:
    """The devices by platform; each process has a CPU of its own."""
    gpus = [f"{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    return {"gpu": gpus, "cpu": [f"{i} (cpu)" for i in range(num_processes)]}


def _platform(hardware: HardwareConfig) -> str:
    if hardware.platform == "auto":
        return "gpu" if torch.cuda.is_available() else "cpu"
    return hardware.platform


def _not_there(hardware: HardwareConfig, present: dict[str, list[str]]) -> DeviceError:
    listed = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in present.items() if names)
    return DeviceError(f"{as_declared(hardware)}: torch sees no such device; present: {listed}")


def placement(device: torch.device, precision: Precision, shape: MeshShape, everyone: Axis) -> Placement:
    """The devices of all processes."""
    platform = "gpu" if device.type == "cuda" else "cpu"
    name = f"{device.index} ({torch.cuda.get_device_name(device)})" if platform == "gpu" else f"{everyone.rank} (cpu)"
    return Placement(platform, _gathered(name, everyone, device), precision, torch.get_num_threads(), shape)


def _gathered(name: str, everyone: Axis, device: torch.device) -> tuple[str, ...]:
    """The names of all processes, as bytes in a tensor."""
    padded = np.frombuffer(name.encode()[:NAME_LENGTH].ljust(NAME_LENGTH), np.uint8)
    found = everyone.gather(torch.tensor(padded, device=device)).cpu().numpy()
    return tuple(row.tobytes().decode().strip() for row in found)


@contextmanager
def memory_guard(remedy: str) -> Iterator[None]:
    """Turn memory failures of torch, and of numpy, into OutOfMemory whose message ends with `remedy`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            place = "GPU"
        elif isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error) or "not enough memory" in str(error):
            place = "machine"  # torch's allocator has no exception class of its own
        else:
            raise
        found = str(error).partition("\n")[0]
        raise OutOfMemory(f"the {place}'s memory is full ({found}): {remedy}") from error
