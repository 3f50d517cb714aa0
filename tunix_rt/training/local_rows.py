"""How many rows a device computes at once in a run: where `auto` begins, and what is recorded of it.

A number changes the last bits, so a run that goes on takes the recorded one again if its devices are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunix_rt.backends import sizes
from tunix_rt.backends.interface import Backend
from tunix_rt.backends.memory import MemoryQuery, asked
from tunix_rt.backends.placement import first_device
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.model import LoraAdapter
from tunix_rt.config.optimizers import OptimizerConfig
from tunix_rt.errors import DeviceError
from tunix_rt.files import JsonObject
from tunix_rt.machine import usable_memory
from tunix_rt.models.adapter import declared
from tunix_rt.models.folder import read_architecture
from tunix_rt.terminal import warn


@dataclass(slots=True)
class LocalRows:
    """The rows that a device computes at once in a session of training."""

    engine: Backend
    backend: BackendConfig
    hardware: HardwareConfig
    optimizer: OptimizerConfig
    adapter: LoraAdapter | None
    keeps_reference: bool
    """A second model stays beside the one that is trained."""
    recorded: int | None
    """Those of the last session, if its devices were these."""
    note: Callable[[int, int], None]
    """(step, rows): records that from the step on there are fewer."""
    most: int = 0
    """Those of a device in an update."""
    noted: int = 0

    def begin(self, model_folder: Path, num_rows: int, length: int) -> None:
        """Before updates of so many rows of so many tokens: all of them at once, or as many as fit by estimate."""
        self.most = -(-num_rows // self.engine.placement.mesh.num_row_ranks)
        if self.hardware.local_batch_size == "auto":
            rows = self.recorded if self.recorded is not None else self._estimate(model_folder, self.most, length)
            self.engine.rows_at_once = None if rows is None or rows >= self.most else rows
        self.noted = self.at_once

    @property
    def at_once(self) -> int:
        """How many there are, `most` included."""
        rows = self.engine.rows_at_once
        return self.most if rows is None else min(rows, self.most)

    def watch(self, step: int) -> None:
        """After a step: say and record it if memory was too short for as many as before."""
        rows = self.at_once
        if rows != self.noted:
            self.noted = rows
            warn(f"the memory of a device is full: from step {step} on it computes {rows} rows at once")
            self.note(step, rows)

    def facts(self) -> JsonObject:
        """Where it is computed: devices, mesh, and rows of a device at once."""
        return placed(self.engine, self.at_once)

    def _estimate(self, model_folder: Path, most: int, length: int) -> int | None:
        """None if the memory of a device is not known."""
        limit, placement = self._memory(), self.engine.placement
        if limit is None:
            return None
        architecture, adapter = read_architecture(model_folder), self.adapter
        query = MemoryQuery(
            architecture=architecture,
            adapter=None if adapter is None else declared(adapter, architecture),
            quantize=None if adapter is None else adapter.quantize,
            backend=self.backend,
            optimizer=self.optimizer,
            batches=(),
            predicted=None,
            keeps_reference=self.keeps_reference,
            mesh=placement.mesh,
        )
        return sizes.rows_that_fit(query, length, most, sizes.fillable(limit, placement.platform))

    def _memory(self) -> int | None:
        """Bytes of one device."""
        if self.engine.placement.platform == "cpu":
            return usable_memory() // self.engine.placement.mesh.size
        known = asked(self.backend.name, "device_memory")
        try:
            return None if known is None else known(first_device(self.hardware))
        except DeviceError:
            return None


def placed(engine: Backend, rows: int | None = None) -> JsonObject:
    """Devices, mesh and, where it is known, how many rows a device computes at once."""
    mesh = engine.placement.mesh
    facts = {
        "devices": list(engine.placement.devices),
        "mesh": {"data": mesh.data, "shard": mesh.shard, "tensor": mesh.tensor},
    }
    return facts if rows is None else facts | {"local_batch_size": rows}
