"""Parts of tensors: read by slices, written by several at the same time: what one alone reads and writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.conftest import ROOT
from tests.models import two_writers
from tests.models.divided import by_rows
from tunix_rt.errors import ModelError
from tunix_rt.machine import umask
from tunix_rt.models.folder import read_weights
from tunix_rt.models.moments import Moments, parts_of_moments, read_moments
from tunix_rt.models.parts import WHOLE, Part, PartOf, nth_rows
from tunix_rt.models.quantize import read_quantized
from tunix_rt.models.shards import ShardLayout, finish, write_tensor_parts, write_tensors
from tunix_rt.models.tensor_file import opened, specs_of

MakeFolder = Callable[..., Path]
RANDOM = np.random.default_rng(0)
TENSORS = {
    "embedding": RANDOM.random((13, 6), np.float32),
    "matrix": RANDOM.random((4, 9), np.float32).T,
    "norm": RANDOM.random(5, np.float32),
    "experts": RANDOM.random((3, 4, 5), np.float32),
    "count": np.array(7, np.int64),
}
"""A vocabulary of 13, which four do not divide; one stored transposed; three axes; none."""


def columns(index: int, count: int) -> PartOf:
    """Two ranges of rows, and columns as in tensor parallelism."""

    def part_of(name: str, shape: tuple[int, ...]) -> Part:
        if len(shape) < 2:
            return by_rows(index, count)(name, shape)
        middle = shape[0] // 2
        return Part(((0, middle), (middle, shape[0])), (nth_rows(shape[1], index, count),))

    return part_of


DIVISIONS = {"rows": by_rows, "columns": columns}


@pytest.mark.parametrize("division", DIVISIONS)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_part_is_read_by_slices(division: str, count: int, tmp_path: Path) -> None:
    stored = {name: np.ascontiguousarray(tensor) for name, tensor in TENSORS.items() if name != "count"}
    stored["half"] = stored["embedding"].astype(ml_dtypes.bfloat16)
    save_file(stored, tmp_path / "file")
    with opened(tmp_path / "file") as file:
        for name, tensor in stored.items():
            parts = [DIVISIONS[division](index, count)(name, tensor.shape) for index in range(count)]
            found = [part.read(file.get_slice(name)) for part in parts]
            assert [one.shape for one in found] == [part.shape(tensor.shape) for part in parts]
            assert all(one.dtype == np.float32 for one in found)
            axis = 1 if division == "columns" and tensor.ndim > 1 else 0
            np.testing.assert_array_equal(np.concatenate(found, axis), tensor.astype(np.float32))


@pytest.mark.parametrize("division", DIVISIONS)
@pytest.mark.parametrize("size", [200, 5_000])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_several_writers_give_the_bytes_of_one(division: str, size: int, count: int, tmp_path: Path) -> None:
    """In threads, in any order, in one file and in several."""
    alone, together = tmp_path / "alone", tmp_path / "together"
    together.mkdir()
    for left in ("model-00001-of-00009.safetensors", "model-00009-of-00009.safetensors.part"):  # of an earlier layout
        (together / left).write_bytes(b"")
    expected = write_tensors(alone, "model", TENSORS, size)
    layout = ShardLayout.of("model", specs_of(TENSORS), size)

    def write(index: int) -> dict[str, str]:
        part_of = DIVISIONS[division](index, count)
        parts = {name: part_of(name, tensor.shape) for name, tensor in TENSORS.items()}
        own = {name: part.of(TENSORS[name]) for name, part in parts.items() if index == 0 or part != WHOLE}
        return write_tensor_parts(together, layout, own, part_of, first=index == 0)

    with ThreadPoolExecutor(count) as threads:
        written = list(threads.map(write, reversed(range(count))))
    index = "model.safetensors.index.json"
    complete = {name for one in written for name in one if not name.endswith(".part")}
    assert complete == ({index} if size == 200 else set())
    assert finish(together, written) == expected
    assert len(expected) == (4 if size == 200 else 1)
    for name in expected:
        assert (together / name).read_bytes() == (alone / name).read_bytes()
    assert sorted(path.name for path in together.iterdir()) == sorted(expected)
    assert {path.stat().st_mode & 0o777 for path in together.iterdir()} == {0o666 & ~umask()}


def test_what_was_not_written_to_its_end_is_refused(tmp_path: Path) -> None:
    layout = ShardLayout.of("model", specs_of(TENSORS))
    written = [write_tensor_parts(tmp_path, layout, {}, by_rows(0, 2), first=True)]
    with pytest.raises(ModelError, match=r"model\.safetensors\.part: damaged"):
        finish(tmp_path, written)
    last = {"norm": TENSORS["norm"]}  # what is before it is missing, but the length is right
    some = write_tensor_parts(tmp_path, layout, last, by_rows(0, 1), first=False)
    with pytest.raises(ModelError, match=r"damaged: \d+ of its [\d,]+ bytes were written"):
        finish(tmp_path, [*written, some])
    assert not (tmp_path / "model.safetensors").exists()


def write_with_another_process(folder: Path, fault: str = "") -> int:
    """The other one has the headers, and finishes, or is killed at a fault point. Returns its exit code."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.models.two_writers", str(folder)]
    environment = os.environ | ({"TUNIX_RT_FAULT": fault} if fault else {})
    other = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, cwd=ROOT)
    try:
        other.communicate(json.dumps(two_writers.write_share(folder, 1)).encode() + b"\n", 60)
        return other.returncode
    finally:
        other.kill()
        other.wait()


def test_processes_write_one_file_and_a_kill_leaves_it_whole_or_absent(tmp_path: Path) -> None:
    """Killed after its parts, and after the first of two files has its name: what has a name is never half a file."""
    assert write_with_another_process(tmp_path / "whole") == 0
    expected = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert len(expected) == 3
    for name, tensor in two_writers.TENSORS.items():
        path = tmp_path / "whole" / f"model-0000{1 + int(name[1]) // 2}-of-00002.safetensors"
        np.testing.assert_array_equal(load_file(path)[name], tensor)
    for most, moment in enumerate(("written parts of", "renamed")):
        folder = tmp_path / f"killed{most}"
        assert write_with_another_process(folder, f"{moment} killed#/model-#-of-#.safetensors:1") == -9
        names = [path.name for path in folder.glob("*.safetensors")]
        assert len(names) <= 2 * most
        assert all((folder / name).read_bytes() == expected[name] for name in names)


@pytest.mark.parametrize("tied", [True, False])
def test_the_parts_of_a_model_and_of_its_moments_are_those_of_the_whole(
    tied: bool, make_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = make_folder(tie_word_embeddings=tied)
    weights = read_weights(folder)
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    kept = {"m": {n: x + 1 for n, x in weights.items()}, "v": {n: x * x for n, x in weights.items()}}
    moments = Moments(kept, 3)
    specs = {kind: {name: ("float32", shape) for name, shape in shapes.items()} for kind in kept}
    for size in (1_000, 10**6):
        place = tmp_path / str(size)
        write_tensors(place, "optimizer", moments.tensors(), size)
        for index in range(4):
            part_of = by_rows(index, 4)
            found, read = read_weights(folder, part_of), read_moments(place, specs, parts_of_moments(part_of, shapes))
            assert read.count == 3
            for name, shape in shapes.items():
                part = part_of(name, shape)
                np.testing.assert_array_equal(found[name], part.of(weights[name]))
                for kind in kept:
                    np.testing.assert_array_equal(read.kept[kind][name], part.of(kept[kind][name]))
    others = parts_of_moments(by_rows(1, 2), shapes)
    assert others("count", ()) == others(f"rows.{next(iter(shapes))}", (3,)) == WHOLE


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_the_parts_of_a_quantised_model_are_those_of_the_whole(kind: str, make_folder: MakeFolder) -> None:
    folder = make_folder(hidden_size=40)
    full, small = read_quantized(folder, kind)  # type: ignore[arg-type]
    for index in range(3):
        part_of = by_rows(index, 3)
        some, parts = read_quantized(folder, kind, part_of)  # type: ignore[arg-type]
        for name, matrix in small.items():
            rows = slice(*nth_rows(len(matrix.codes), index, 3))
            np.testing.assert_array_equal(parts[name].codes, matrix.codes[rows])
            np.testing.assert_array_equal(parts[name].scales, matrix.scales[rows])
            assert parts[name].shape == matrix.shape
        for name, array in full.items():
            np.testing.assert_array_equal(some[name], part_of(name, array.shape).of(array))


def test_a_restore_by_halves_holds_half(make_folder: MakeFolder) -> None:
    """Prevents: a process that reads whole tensors and keeps its part. Bytes of numpy and of the library together."""
    folder = make_folder(hidden_size=256, intermediate_size=1024, num_hidden_layers=4)
    weights = {name: tensor.nbytes for name, tensor in read_weights(folder).items()}
    peaks = {}
    for count in (1, 2, 4):
        tracemalloc.start()
        found = read_weights(folder, by_rows(0, count))
        peaks[count] = tracemalloc.get_traced_memory()[1] / sum(weights.values())
        tracemalloc.stop()
        del found
    assert peaks[1] >= 1.0
    for count in (2, 4):
        assert peaks[count] < (1.0 + max(weights.values()) / sum(weights.values())) / count + 0.02, peaks


def test_the_index_of_several_writers_is_json_like_any(tmp_path: Path) -> None:
    layout = ShardLayout.of("model", specs_of(TENSORS), 200)
    layout.write_index(tmp_path)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text("utf-8"))
    assert index["weight_map"]["embedding"] == "model-00001-of-00003.safetensors"
    assert index["metadata"] == {"total_parameters": 13 * 6 + 36 + 5 + 60 + 1, "total_size": 4 * (78 + 36 + 5 + 60) + 8}
