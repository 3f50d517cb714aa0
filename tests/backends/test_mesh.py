"""Rows are shared out once each, whatever the devices; a mesh has as many places as there are devices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt.backends.fold import Fold
from tunix_rt.backends.mesh import MeshShape
from tunix_rt.backends.placement import own_device
from tunix_rt.backends.processes.world import World
from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import HardwareConfig, MeshConfig
from tunix_rt.errors import DeviceError

few = st.integers(1, 9)


@given(num_rows=st.integers(1, 40), at_once=st.none() | few, ranks=few)
def test_every_row_is_computed_once_and_comes_back_to_its_place(num_rows: int, at_once: int | None, ranks: int) -> None:
    fold = Fold.of(num_rows, at_once, ranks)
    assert fold.local_rows <= (at_once or num_rows)
    numbers = np.arange(2 * num_rows, dtype=np.int32).reshape(num_rows, 2) + 1
    batch = Batch(numbers, numbers, numbers, numbers, numbers.astype(np.float32), 7.0)
    parts = [fold.local(batch, rank) for rank in range(ranks)]
    shape = (fold.micro_batches, fold.local_rows, 2)
    assert all(part.tokens.shape == shape and part.divisor == 7.0 for part in parts)
    together = np.stack([part.tokens for part in parts], axis=1)
    assert together.reshape(-1, 2)[:num_rows].tolist() == numbers.tolist()
    held = np.concatenate([part.tokens.reshape(-1, 2) for part in parts])
    assert sorted(held[held[:, 0] > 0].tolist()) == numbers.tolist()
    for rank, part in enumerate(parts):
        places = fold.rows(rank)
        inside = places < num_rows
        assert part.tokens[inside].tolist() == numbers[places[inside]].tolist()
        assert not part.weights[~inside].any(), "what fills up weighs nothing"
    assert fold.empty_rows < fold.micro_batches * ranks + fold.local_rows * ranks


@pytest.mark.parametrize(
    ("given", "devices", "expected"),
    [
        ((-1, 1, 1), 8, (8, 1, 1)),
        ((-1, 4, 1), 8, (2, 4, 1)),
        ((1, -1, 2), 8, (1, 4, 2)),
        ((-1, 1, 1), 1, (1, 1, 1)),
    ],
)
def test_what_is_left_fills_the_mesh(given: tuple[int, int, int], devices: int, expected: tuple[int, int, int]) -> None:
    data, shard, tensor = given
    shape = MeshShape.of(MeshConfig(data=data, shard=shard, tensor=tensor), devices)
    assert (shape.data, shape.shard, shape.tensor) == expected


@pytest.mark.parametrize("given", [(3, 1, 1), (-1, 3, 1), (2, 2, 1), (-1, 1, 16)])
def test_a_mesh_that_the_devices_cannot_fill_is_refused_with_the_numbers(given: tuple[int, int, int]) -> None:
    data, shard, tensor = given
    with pytest.raises(DeviceError, match=rf"tensor {tensor} cannot be filled by 8 devices"):
        MeshShape.of(MeshConfig(data=data, shard=shard, tensor=tensor), 8)


def test_a_process_takes_the_device_of_its_place_or_the_only_one_it_is_shown() -> None:
    world, every = (
        World(rank=5, size=8, local_rank=1, local_size=4),
        HardwareConfig(platform="gpu", threads=1, devices=4),
    )
    assert own_device(every, world, {}) == own_device(every, world, {"CUDA_VISIBLE_DEVICES": "0,1"}) == 1
    assert own_device(every, world, {"CUDA_VISIBLE_DEVICES": "3"}) == 0
    assert own_device(HardwareConfig(platform="gpu", threads=1, devices=(2, 3, 6, 7)), world, {}) == 3
