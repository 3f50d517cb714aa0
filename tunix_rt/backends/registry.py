"""Creates a backend from its name. The framework is imported only here, when it is needed."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from tunix_rt.backends.interface import Backend
from tunix_rt.backends.processes import start
from tunix_rt.backends.processes.world import ALONE, World
from tunix_rt.config.choices import BACKENDS
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.errors import DeviceError, MissingExtra


def require(name: str) -> None:
    """Check, without importing it, that the framework of backend `name` is installed. Raises MissingExtra."""
    facts = BACKENDS[name]
    if importlib.util.find_spec(facts.package) is None:
        words = f"uv sync {'--no-dev ' if facts.apart else ''}--extra {facts.extra}"
        raise MissingExtra(
            f"backend {name!r}: the package {facts.package!r} is not installed; "
            f"install the extra: {words} (or pip install 'tunix_rt[{facts.extra}]')"
        )


def create(backend: BackendConfig, hardware: HardwareConfig, cache: Path) -> Backend:
    """Create the backend `backend.name` on `hardware`; compiled programs are kept under `cache`.

    If `hardware.devices` or a launcher asks for several processes, this one leads them, and all compute together.
    Raises MissingExtra, DeviceError, and RunError if the processes do not find each other.
    """
    require(backend.name)
    size, hardware = _processes(backend, hardware)
    if size > 1:
        return _together(size, backend, hardware, cache)
    return cast(Backend, _module(backend.name).create(backend, hardware, cache, ALONE))


def _module(name: str) -> Any:
    return importlib.import_module(f"tunix_rt.backends.{name}.backend")


def _processes(backend: BackendConfig, hardware: HardwareConfig) -> tuple[int, HardwareConfig]:
    """How many processes compute, and on what. Under a launcher there are as many as it has started."""
    facts, launched = BACKENDS[backend.name], start.launched()
    if launched.size > 1:
        return launched.size, _of_launcher(backend, hardware, launched)
    if not facts.process_per_device or hardware.num_devices == 1:
        return 1, hardware
    return int(_module(backend.name).num_processes(hardware)), hardware


def _of_launcher(backend: BackendConfig, hardware: HardwareConfig, launched: World) -> HardwareConfig:
    """`hardware` of all processes that the launcher has started; a declared 1 is one each. Raises DeviceError."""
    facts, what = BACKENDS[backend.name], f"the launcher has started {launched.size} processes"
    if not facts.devices:
        raise DeviceError(f"{what}, but backend {backend.name!r} computes on one device; start it without")
    if hardware.devices == 1:
        return replace(hardware, devices="all")
    if facts.process_per_device and isinstance(hardware.devices, int) and hardware.devices != launched.size:
        raise DeviceError(f"{what}, one for each device, but hardware.devices is {hardware.devices}; all fits any")
    return hardware


def _together(size: int, backend: BackendConfig, hardware: HardwareConfig, cache: Path) -> Backend:
    """The backend of `size` processes, which import the framework at the same time."""
    from tunix_rt.backends.processes.leader import Leader
    from tunix_rt.backends.processes.messages import Held

    job = start.followers(size)
    call = job.send("create", backend=backend, hardware=hardware, cache=cache, world=job.world, folder=Path.cwd())
    with job.together(call):
        module = _module(backend.name)
        job.leave_framework = module.leave
        local = module.create(backend, hardware, cache, job.world)
    return Leader(local, Held(call.number), job)
