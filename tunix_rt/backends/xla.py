"""What the backends based on jax share: the device, the threads, the cache of compiled programs.

The only file that touches jax's globals.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from tunix_rt.backends import heap
from tunix_rt.backends.interface import Measurements, Placement
from tunix_rt.backends.mesh import MeshShape
from tunix_rt.backends.placement import as_declared
from tunix_rt.backends.processes.world import ALONE, World
from tunix_rt.backends.processor import processor_name
from tunix_rt.backends.storage import StoredBackend
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.errors import DeviceError, OutOfMemory
from tunix_rt.files import sha256_bytes

COMPILED = "/jax/core/compile/backend_compile_duration"
"""The event that jax reports when a program has been compiled or found in the cache."""
ROWS = "hardware.local_batch_size (rows that a device computes at once)"
"""The setting to lower if a step does not fit into memory."""
_compilations = 0
"""Number of programs that this process has compiled or found in the cache."""
_threads: int | None = None
"""CPU threads of this process: fixed when jax starts."""


class XlaBackend(StoredBackend):
    """What every backend on jax has: a device, and the same way to fetch and to describe."""

    packages: tuple[str, ...] = ("jax", "jaxlib", "flax", "optax")
    """Packages whose versions `describe` reports."""

    def __init__(self, config: BackendConfig, hardware: HardwareConfig, cache: Path, world: World = ALONE) -> None:
        """Start jax (once per process) on the devices that `hardware` names; see `registry.create`.

        Matrix products of float32 are computed in float32 on every device. On the CPU dispatch is synchronous: queued
        programs would each hold their scratch memory already (8 steps of a 10 M-parameter model: 4.1 GB instead of
        1.3, at the same speed).
        """
        super().__init__(hardware, world.leads)
        _configure("jax_default_matmul_precision", "highest")
        _keep_compiled(cache)
        threads = _start(hardware, world)
        devices = _choose(hardware, world)
        self._devices, self._device = devices, devices[0]
        kind = "gpu" if self._device.platform == "cuda" else self._device.platform
        names = tuple(f"{device.device_kind} {device.id}" for device in devices)
        self._config = config
        self.placement = Placement(kind, names, config.decided, threads, MeshShape.of(hardware.mesh, len(devices)))

    def fetch(self, measurements: Measurements) -> dict[str, np.ndarray[Any, Any]]:
        """Wait for the device, copy to the host. Raises OutOfMemory."""
        with memory_errors(ROWS):
            return {name: np.array(value) for name, value in jax.device_get(measurements).items()}

    def describe(self) -> dict[str, str]:
        """Versions, and what else may change numbers, for `environment.json`."""
        return {name: version(name) for name in self.packages} | {
            "device": ", ".join(self.placement.devices),
            "processor": processor_name(),
            "precision": self.placement.precision,
            "matmul_precision": "highest",
            "threads": str(self.placement.threads),
            "python": sys.version.split()[0],
            **({"mesh": str(self.placement.mesh)} if self.placement.mesh.size > 1 else {}),
        }


def _configure(name: str, value: object) -> None:
    jax.config.update(name, value)  # type: ignore[no-untyped-call]


def _start(hardware: HardwareConfig, world: World) -> int:
    """XLA sizes its thread pool when its client is created: by NPROC, or else by the affinity mask.

    Later calls in the same process cannot change it, nor the number of devices that the CPU is divided into; they
    return the number of threads in use. Other programs that this process starts must not see the variables.
    """
    global _threads
    if _threads is None:
        heap.retain_freed_memory()
        _configure("jax_cpu_enable_async_dispatch", False)
        jax.monitoring.register_event_duration_secs_listener(_count_compilation)
        flags = os.environ.get("XLA_FLAGS", "")
        if hardware.platform == "cpu":
            _configure("jax_platforms", "cpu")
        else:
            flags += " --xla_gpu_deterministic_ops=true"
        if hardware.devices != 1:
            _configure("jax_num_cpu_devices", _cpu_devices(hardware, world))
        wanted = world.threads(hardware.threads)
        before = {name: os.environ.pop(name) for name in ("NPROC", "XLA_FLAGS") if name in os.environ}
        os.environ |= {"NPROC": str(wanted), "XLA_FLAGS": flags}
        try:
            _join(world)
            jax.devices()
        except RuntimeError as error:
            raise DeviceError(f"jax cannot start: {error}") from None
        finally:
            del os.environ["NPROC"], os.environ["XLA_FLAGS"]
            os.environ |= before
        _threads = wanted
    return _threads


def _join(world: World) -> None:
    """Meet the job's other processes; on the CPU they talk by gloo. The devices of all are then one list."""
    if world.size > 1:
        _configure("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"{world.address}:{world.port}", world.size, world.rank)


def leave() -> None:
    """Leave the job's other processes, if this one has met them: all at once, since each waits for all."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()  # type: ignore[no-untyped-call]


def num_devices(hardware: HardwareConfig, launched: World) -> int | None:
    """Those that are declared, or found if `all` are; None under a launcher, whose processes count theirs together.

    Raises DeviceError if one is not there. A processor has as many as one likes.
    """
    if launched.size > 1:
        return None
    if hardware.platform == "cpu":
        return hardware.num_devices or 1
    _start(hardware, launched)
    return len(_choose(hardware, launched))


def _cpu_devices(hardware: HardwareConfig, world: World) -> int:
    """Into how many devices this process divides the CPU, where that is the platform."""
    if hardware.devices == "all":
        return 1
    last = max(hardware.devices) + 1 if isinstance(hardware.devices, tuple) else hardware.devices
    return max(1, -(-last // world.size))


def _count_compilation(event: str, duration_secs: float, **kwargs: str | int) -> None:
    """A compilation leaves 0.1 GB free, too fragmented for scratch memory; so does a program's first run."""
    global _compilations
    if event == COMPILED:
        _compilations += 1
        heap.give_back()


def _choose(hardware: HardwareConfig, world: World) -> list[jax.Device]:
    """The devices of the whole job, in the order of its processes; of several, 1 means all, as under any launcher."""
    try:
        found = jax.devices() if hardware.platform == "auto" else jax.devices(hardware.platform)
    except RuntimeError:
        found = []
    if found and (hardware.devices == "all" or (hardware.devices == 1 and world.size > 1)):
        return found
    wanted = hardware.devices if isinstance(hardware.devices, tuple) else range(int(hardware.num_devices or 1))
    if max(wanted) < len(found):
        chosen = [found[number] for number in wanted]
        _check_shared_out(chosen, found, world)
        return chosen
    present = sorted({device.platform: device for device in (*jax.devices(), *jax.devices("cpu"))}.items())
    listed = "; ".join(f"{name}: {', '.join(str(device.id) for device in jax.devices(name))}" for name, _ in present)
    raise DeviceError(f"{as_declared(hardware)}: jax sees no such device; present: {listed}")


def _check_shared_out(chosen: list[jax.Device], found: list[jax.Device], world: World) -> None:
    if len({device.process_index for device in chosen}) < world.size:
        raise DeviceError(
            f"hardware.devices: {len(chosen)} of {len(found)} devices leave one of {world.size} processes without any; "
            "all takes every device of every process"
        )


def _keep_compiled(cache: Path) -> None:
    """Compiled programs hold instructions of one processor, so each processor and version has its own folder."""
    words = repr((processor_name(), version("jax"), version("jaxlib")))
    folder = str(cache.absolute() / "jax" / sha256_bytes(words.encode())[:12])
    if folder == jax.config.values["jax_compilation_cache_dir"]:
        return
    compilation_cache.reset_cache()
    _configure("jax_compilation_cache_dir", folder)
    _configure("jax_persistent_cache_min_compile_time_secs", 0.2)
    _configure("jax_persistent_cache_min_entry_size_bytes", -1)


def compilations() -> int:
    """How many programs this process has compiled, or found in the cache, so far."""
    return _compilations


@contextmanager
def memory_errors(setting: str) -> Iterator[None]:
    """Turn jax's out-of-memory error into OutOfMemory, which names the `setting` to lower."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # ValueError: of a program that has run before
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OutOfMemory(f"the device has no memory left: lower {setting} ({str(error).splitlines()[0]})") from None
