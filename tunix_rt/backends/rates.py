"""How fast a device multiplies matrices in each precision: measured once per device and version, then remembered.

The products of one linear layer in training, forward and backward, as the backend itself computes them; the sizes are
always the same, so that the answer is a property of the device, not of a model. Framework-free until it measures, which
a process of its own does: the framework starts only once per process, and how is decided later.
"""

from __future__ import annotations

import importlib
import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import get_args

from tunix_rt.backends import heap, registry
from tunix_rt.backends.interface import Placement
from tunix_rt.backends.placement import first_device, on_one_device
from tunix_rt.backends.processes import start
from tunix_rt.backends.processor import processor_name
from tunix_rt.config.choices import BACKENDS, Precision
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.errors import ConfigError, DeviceError, TunixError
from tunix_rt.files import read_json, sha256_bytes, write_json

ROWS, INPUTS, OUTPUTS = 1024, 512, 1536
"""Sizes of the measured layer: [ROWS, INPUTS] times [INPUTS, OUTPUTS]."""
FLOP = 3 * 2 * ROWS * INPUTS * OUTPUTS
"""Of its three products: forward, and the slopes of its input and its matrix."""
LAPS = 4
"""Of each precision in turn; the fastest counts: whatever else the machine does only slows one down."""
VISIBLE = "CUDA_VISIBLE_DEVICES HIP_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES TPU_VISIBLE_CHIPS JAX_PLATFORMS".split()
"""Variables by which another device is the first one."""
CARDS = (
    "proc/driver/nvidia/gpus/*/information",
    "sys/class/drm/card*/device/device",
    "sys/class/accel/accel*/device/device",
)
"""Files that say which devices a machine has: NVIDIA's driver, and the PCI ids of GPUs and of TPUs."""
DECLARE = "declare backend.precision=float32 or bfloat16"

Rates = dict[Precision, float]
"""Precision → GFLOP/s."""


def rates(backend: str, hardware: HardwareConfig, cache: Path) -> Rates:
    """Rates of the first device of `hardware`, from `cache` where they are known.

    Raises MissingExtra, DeviceError; ConfigError where they cannot be measured.
    """
    registry.require(backend)
    if not BACKENDS[backend].measures_precision:
        raise ConfigError(f"backend.precision=auto: {backend} cannot measure it; {DECLARE}")
    if start.launched().size > 1:
        raise ConfigError(f"backend.precision=auto: several processes compute together; {DECLARE}")
    file = cache / "rates" / f"{_key(backend, hardware)}.json"
    if (found := _remembered(file)) is None:
        found = _measured_apart(backend, hardware, cache)
        with suppress(OSError):  # where the cache cannot be written, it is measured each time
            write_json(file, dict(found))
    return found


def _remembered(file: Path) -> Rates | None:
    """None also where the file is damaged: what is in a cache can be had again."""
    try:
        known = read_json(file)
        found: Rates = {precision: float(known[precision]) for precision in get_args(Precision)}
    except (TunixError, OSError, LookupError, TypeError, ValueError):
        return None
    return found if all(0 < rate < math.inf for rate in found.values()) else None


def said(found: Rates) -> str:
    """The rates in words: `float32 190, bfloat16 165 GFLOP/s`."""
    return ", ".join(f"{precision} {rate:.3g}" for precision, rate in found.items()) + " GFLOP/s"


def _key(backend: str, hardware: HardwareConfig) -> str:
    """A digest of the device, as far as it is known without the framework, and of the framework's version."""
    cards = [file.read_text("utf-8") for pattern in CARDS for file in sorted(Path("/").glob(pattern))]
    visible = [os.environ.get(name) for name in VISIBLE]
    device = (hardware.platform, first_device(hardware), str(hardware.threads), processor_name(), cards, visible)
    return sha256_bytes(repr((backend, version(BACKENDS[backend].package), device)).encode())[:16]


def _measured_apart(backend: str, hardware: HardwareConfig, cache: Path) -> Rates:
    context = get_context("spawn")
    ours, its = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(its, backend, on_one_device(hardware), cache))
    process.start()
    its.close()
    try:
        found = ours.recv()
    except EOFError:
        raise DeviceError(f"backend.precision=auto: the process that measures died; {DECLARE}") from None
    finally:
        process.join()
    if isinstance(found, TunixError):
        raise found
    return {precision: found[precision] for precision in get_args(Precision)}


def _serve(answer: Connection, backend: str, hardware: HardwareConfig, cache: Path) -> None:
    heap.own_process()
    try:
        answer.send(_measured(backend, hardware, cache))
    except TunixError as error:
        answer.send(error)


def _measured(backend: str, hardware: HardwareConfig, cache: Path) -> Rates:
    engine = registry.create(BackendConfig(name=backend, precision="float32"), hardware, cache)  # type: ignore[arg-type]
    products = importlib.import_module(f"tunix_rt.backends.{backend}.layer_products")
    where, shape = engine.placement, (ROWS, INPUTS, OUTPUTS)
    laps = {each: products.repeatable(where.platform, each, *shape) for each in get_args(Precision)}
    best = dict.fromkeys(laps, math.inf)
    for _ in range(LAPS):
        for precision, lap in laps.items():
            best[precision] = min(best[precision], _seconds(lap, where))
    return {precision: FLOP / seconds / 1e9 for precision, seconds in best.items()}


def _seconds(lap: Callable[[], None], where: Placement) -> float:
    """Of a lap with the device to itself: on a CPU the processor time of each thread, which others do not lengthen."""
    on_cpu = where.platform == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    started = clock()
    lap()
    return (clock() - started) / (where.threads if on_cpu else 1)
