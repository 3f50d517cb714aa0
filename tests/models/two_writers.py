"""One of two processes that write four tensors, two to a file: `python -m tests.models.two_writers FOLDER`.

It has the headers, and finishes the files when a line comes in, after the other one has written its share.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tunix_rt.models.parts import by_rows
from tunix_rt.models.shards import ShardLayout, finish, write_tensor_parts
from tunix_rt.models.tensor_file import specs_of

TENSORS = {f"t{i}": np.arange(i, i + 7 * 1000, dtype=np.float32).reshape(7, 1000) for i in range(4)}


def write_share(folder: Path, index: int) -> None:
    """What process 0 or 1 writes."""
    part_of = by_rows(index, 2)
    own = {name: part_of(name, array.shape).of(array) for name, array in TENSORS.items()}
    write_tensor_parts(folder, ShardLayout.of("model", specs_of(TENSORS), 60_000), own, part_of, first=index == 0)


if __name__ == "__main__":
    write_share(Path(sys.argv[1]), 0)
    sys.stdin.readline()
    finish(Path(sys.argv[1]))
