"""Datasets of numbers that the tests of this station share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tunix_rt.batches.encoded import Encoded, EncodedDataset, write_encoded


@pytest.fixture(scope="session")
def make_dataset(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[int]], EncodedDataset]:
    """Write and open traces of given lengths (in positions); every token of trace i is 1000 * i + its place."""

    def make(lengths: Sequence[int]) -> EncodedDataset:
        folder: Path = tmp_path_factory.mktemp("encoded")
        items = []
        for trace, length in enumerate(lengths):
            ids = np.arange(1000 * trace, 1000 * trace + length + 1, dtype=np.int32)
            items.append((f"t{trace}", Encoded(ids, np.full(length + 1, 1 + trace, dtype=np.float32))))
        write_encoded(folder, items)
        return EncodedDataset.open(folder)

    return make
