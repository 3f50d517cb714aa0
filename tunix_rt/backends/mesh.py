"""Which device of a mesh does what, framework-free: the axes data, shard and tensor, and the ranks along them."""

from __future__ import annotations

from dataclasses import dataclass

from tunix_rt.config.execution import MeshConfig
from tunix_rt.errors import DeviceError


@dataclass(frozen=True, slots=True)
class MeshShape:
    """Number of devices along each axis. Ranks count along `tensor` first, then `shard`, then `data`, so that the
    devices that talk most are next to each other (as torchtitan, distributed/parallel_dims.py)."""

    data: int = 1
    shard: int = 1
    tensor: int = 1

    @classmethod
    def of(cls, mesh: MeshConfig, num_devices: int) -> MeshShape:
        """The mesh of so many devices, with -1 filled in. Raises DeviceError with the numbers."""
        sizes = mesh.filled(num_devices)
        if sizes is None:
            named = f"data {mesh.data}, shard {mesh.shard}, tensor {mesh.tensor}"
            raise DeviceError(
                f"hardware.mesh: {named} cannot be filled by {num_devices} devices: set hardware.mesh.data, .shard and "
                ".tensor so that their product is that number (-1: what is left); hardware=cpu is one device"
            )
        return cls(*sizes)

    @property
    def size(self) -> int:
        """Number of devices."""
        return self.data * self.shard * self.tensor

    @property
    def num_row_ranks(self) -> int:
        """Among how many the rows of an update are shared out: those along `tensor` compute the same ones."""
        return self.data * self.shard

    def __str__(self) -> str:
        return f"data {self.data} x shard {self.shard} x tensor {self.tensor}"


ONE_DEVICE = MeshShape()
