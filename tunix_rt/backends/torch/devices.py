"""Where the torch backend computes: device, threads, precision; memory failures as one clear line.

In: the section `hardware` and the declared precision. Out: the devices found. Independent of the model.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tunix_rt.backends.interface import Placement
from tunix_rt.config.choices import Precision
from tunix_rt.config.execution import HardwareConfig
from tunix_rt.errors import DeviceError, OutOfMemory
from tunix_rt.machine import usable_cores


def select(hardware: HardwareConfig) -> torch.device:
    """The device that `hardware` names; sets torch's threads. Raises DeviceError listing those present."""
    torch.set_num_threads(num_threads(hardware))
    platform = hardware.platform
    if platform == "auto":
        platform = "gpu" if torch.cuda.is_available() else "cpu"
    present = _present()
    found = present.get(platform, [])
    if hardware.device >= len(found):
        listed = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in present.items() if names)
        raise DeviceError(
            f"hardware.platform={platform} hardware.device={hardware.device}: torch sees no such device; "
            f"present: {listed}"
        )
    if platform == "cpu":
        return torch.device("cpu")
    _make_deterministic()
    return torch.device("cuda", hardware.device)


def num_threads(hardware: HardwareConfig) -> int:
    """CPU threads of torch: as declared, or the number of cores that this process may use."""
    return usable_cores() if hardware.threads == "auto" else hardware.threads


def placement(device: torch.device, precision: Precision) -> Placement:
    """The device found: one process, one device."""
    platform = "gpu" if device.type == "cuda" else "cpu"
    return Placement(
        process=0,
        num_processes=1,
        platform=platform,
        devices=(_present()[platform][device.index or 0],),
        precision=precision,
        threads=torch.get_num_threads(),
    )


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context in which matrix products run in `precision`; weights and sums stay float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


@contextmanager
def memory_guard(remedy: str) -> Iterator[None]:
    """Turn torch's memory failures into OutOfMemory whose message ends with `remedy`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f"the GPU's memory is full ({_first_line(error)}): {remedy}") from error
    except RuntimeError as error:
        # The CPU allocator has no exception class of its own.
        if "DefaultCPUAllocator" not in str(error) and "not enough memory" not in str(error):
            raise
        raise OutOfMemory(f"the machine's memory is full ({_first_line(error)}): {remedy}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _present() -> dict[str, list[str]]:
    gpus = [f"{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    return {"gpu": gpus, "cpu": ["0 (cpu)"]}


def _make_deterministic() -> None:
    """On CUDA some kernels add in any order; on the CPU those used here are deterministic already."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
