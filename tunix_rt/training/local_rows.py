"""How many rows a device computes at once in a run: where `auto` begins, and that it stays so when the run goes on.

A number changes the last bits, so a resumed run takes the recorded one again if its devices are the same.
"""

from __future__ import annotations

from pathlib import Path

from tunix_rt.backends import sizes
from tunix_rt.backends.interface import Backend
from tunix_rt.backends.memory import MemoryQuery, asked
from tunix_rt.backends.placement import first_device
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.model import LoraAdapter
from tunix_rt.config.training import OptimizerConfig
from tunix_rt.errors import DeviceError
from tunix_rt.machine import usable_memory
from tunix_rt.models.adapter import declared
from tunix_rt.models.folder import read_architecture


def first_rows(
    engine: Backend,
    backend: BackendConfig,
    hardware: HardwareConfig,
    optimizer: OptimizerConfig,
    adapter: LoraAdapter | None,
    model_folder: Path,
    shape: tuple[int, int],
) -> int | None:
    """Rows at once for updates of `shape` [R, T], by estimate; None (all) if the memory of a device is not known."""
    limit, mesh = _memory(engine, backend, hardware), engine.placement.mesh
    if limit is None:
        return None
    architecture = read_architecture(model_folder)
    query = MemoryQuery(
        architecture=architecture,
        adapter=None if adapter is None else declared(adapter, architecture),
        quantize=None if adapter is None else adapter.quantize,
        backend=backend,
        optimizer=optimizer,
        batches=(),
        predicted=None,
        mesh=mesh,
    )
    rows, length = shape
    fillable = sizes.fillable(limit, engine.placement.platform)
    return sizes.rows_that_fit(query, length, -(-rows // mesh.num_row_ranks), fillable)


def _memory(engine: Backend, backend: BackendConfig, hardware: HardwareConfig) -> int | None:
    """Bytes of one device."""
    if engine.placement.platform == "cpu":
        return usable_memory() // engine.placement.mesh.size
    known = asked(backend.name, "device_memory")
    try:
        return None if known is None else known(first_device(hardware))
    except DeviceError:
        return None
