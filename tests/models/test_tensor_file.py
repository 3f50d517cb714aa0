"""A safetensors file written tensor by tensor: the library's own bytes, their hash, and the mode of the umask."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tunix_rt.files import sha256_file
from tunix_rt.models.tensor_file import write_weights


@pytest.mark.parametrize("names", [("a", "b", "ä.weight"), ("z", "m.z", "count_down")])
def test_the_bytes_are_those_of_the_library(names: tuple[str, ...], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    tensors = {
        names[0]: random.random((3, 5), np.float32),
        names[1]: random.random((4, 2), np.float32).T,
        names[2]: np.zeros((0, 7), np.float32),
        "count": np.array(7, np.int64),
    }
    written = write_weights(tmp_path / "ours", tensors)
    save_file(
        {name: np.asarray(array, order="C") for name, array in tensors.items()}, tmp_path / "theirs", {"format": "pt"}
    )
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert written == sha256_file(tmp_path / "ours")
    assert np.array_equal(load_file(tmp_path / "ours")[names[1]], tensors[names[1]])
    assert load_file(tmp_path / "ours")["count"] == 7


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_the_mode_is_that_of_the_umask(umask: int, mode: int, tmp_path: Path) -> None:
    """Prevents: weights of mode 0600 on a machine that is shared, whatever the umask says."""
    before = os.umask(umask)
    try:
        write_weights(tmp_path / "file", {"a": np.zeros(1, np.float32)})
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode
