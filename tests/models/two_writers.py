"""One of two processes that write four tensors, two to a file: `python -m tests.models.two_writers FOLDER`.

It has the headers, and finishes the files when a line comes in: what the other one has written, as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from tests.models.divided import by_rows
from tunix_rt.models.shards import ShardLayout, finish, write_tensor_parts
from tunix_rt.models.tensor_file import specs_of

TENSORS = {f"t{i}": np.arange(i, i + 7 * 1000, dtype=np.float32).reshape(7, 1000) for i in range(4)}


def write_share(folder: Path, index: int) -> dict[str, str]:
    """What process 0 or 1 writes, and returns of it."""
    part_of = by_rows(index, 2)
    own = {name: part_of(name, array.shape).of(array) for name, array in TENSORS.items()}
    return write_tensor_parts(
        folder, ShardLayout.of("model", specs_of(TENSORS), 60_000), own, part_of, first=index == 0
    )


if __name__ == "__main__":
    own = write_share(Path(sys.argv[1]), 0)
    finish(Path(sys.argv[1]), [own, json.loads(sys.stdin.readline())])
