"""Creates a backend from its name. The framework is imported only here, when it is needed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from tunix_rt.backends import heap
from tunix_rt.backends.interface import Backend
from tunix_rt.backends.mesh import MeshShape
from tunix_rt.backends.placement import substitutes
from tunix_rt.backends.processes import start
from tunix_rt.backends.processes.world import ALONE, World
from tunix_rt.config.choices import BACKENDS
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.errors import DeviceError, MissingExtra
from tunix_rt.hints import install


def require(name: str) -> None:
    """Check, without importing it, that the framework of backend `name` is installed. Raises MissingExtra."""
    facts = BACKENDS[name]
    if importlib.util.find_spec(facts.package) is None:
        raise MissingExtra(f"backend {name!r}: the package {facts.package!r} is not installed: {install(facts.extra)}")


def create(backend: BackendConfig, hardware: HardwareConfig, cache: Path) -> Backend:
    """Create the backend `backend.name` on `hardware`; compiled programs are kept under `cache`.

    If `hardware.devices` or a launcher asks for several processes, this one leads them, and all compute together.
    Raises MissingExtra, DeviceError, and RunError if the processes do not find each other.
    """
    require(backend.name)
    _join_tpu_pod(backend, hardware)
    size, hardware = _processes(backend, hardware)
    if size > 1:
        return _together(size, backend, hardware, cache)
    return cast(Backend, import_backend(backend.name).create(backend, hardware, cache, ALONE))


def num_devices(backend: BackendConfig, hardware: HardwareConfig) -> int | None:
    """How many devices `hardware` means; None if only the processes of a launcher can say it, once they have met.

    Starts no other process; only on a TPU pod the hosts meet from here on. Raises MissingExtra, and DeviceError if one
    is not there, or if they cannot fill the mesh.
    """
    require(backend.name)
    _join_tpu_pod(backend, hardware)
    launched = start.launched()
    if launched.size > 1:
        hardware = _of_launcher(backend, hardware, launched)
    number: int | None = import_backend(backend.name).num_devices(hardware, launched)
    if number is not None:
        MeshShape.of(hardware.mesh, number)
    return number


def available(backend: BackendConfig, hardware: HardwareConfig) -> HardwareConfig:
    """`hardware`, or the nearest to it that is there, which is enough to ask a finished model. Raises MissingExtra, and
    DeviceError if there is none."""
    try:
        num_devices(backend, hardware)
        return hardware
    except DeviceError as error:
        for other in substitutes(hardware):
            with suppress(DeviceError):
                num_devices(backend, other)
                return other
        raise error


def _join_tpu_pod(backend: BackendConfig, hardware: HardwareConfig) -> None:
    facts = BACKENDS[backend.name]
    if facts.devices and "tpu" in facts.platforms and hardware.platform in ("auto", "tpu"):
        start.join_tpu_pod()


def import_backend(name: str) -> Any:
    """The module of a backend; importing it and its framework takes a second or more."""
    module = f"tunix_rt.backends.{name}.backend"
    known = module in sys.modules
    found = importlib.import_module(module)
    if not known:
        heap.pass_over_imports()
    return found


def _processes(backend: BackendConfig, hardware: HardwareConfig) -> tuple[int, HardwareConfig]:
    """How many processes compute, and on what. Under a launcher there are as many as it has started."""
    facts, launched = BACKENDS[backend.name], start.launched()
    if launched.size > 1:
        return launched.size, _of_launcher(backend, hardware, launched)
    if not facts.process_per_device or hardware.num_devices == 1:
        return 1, hardware
    return int(import_backend(backend.name).num_devices(hardware, launched)), hardware


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
        module = import_backend(backend.name)
        job.leave_framework = module.leave
        local = module.create(backend, hardware, cache, job.world)
    return Leader(local, Held(call.number), job)
