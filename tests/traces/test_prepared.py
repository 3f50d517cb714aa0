"""A prepared folder is found whole by its manifest, and gives back the traces that were written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tunix_rt.checked import seal
from tunix_rt.errors import DataError
from tunix_rt.files import write_json, write_jsonl
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.traces.trace import Step, Trace


def test_a_folder_without_manifest_is_not_whole_and_its_traces_come_back(tmp_path: Path) -> None:
    prepared = PreparedData(tmp_path / "data" / "name" / "identity")
    traces = [Trace("b", "2", (Step(0, "sum", "é"),), "x", {"k": 1}), Trace("a", "1", (), "y")]
    write_jsonl(prepared.traces_file("test"), (trace.to_json() for trace in traces))
    assert prepared.traces("test") == traces, "in the order written"
    assert not prepared.is_whole
    write_json(prepared.manifest_file, {"model": {"folder": "../../../models/m"}})
    assert prepared.is_whole
    assert prepared.model_folder == (tmp_path / "models" / "m").resolve()
    assert prepared.encoded("train").parent.parent == prepared.folder


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    prepared = PreparedData(tmp_path)
    write_jsonl(prepared.traces_file("train"), [{"prompt": "1"}])
    with pytest.raises(DataError, match=r"train.jsonl:1: final_answer: missing"):
        prepared.traces("train")


@pytest.fixture
def small(tmp_path: Path) -> PreparedData:
    """Prepared data as `prepare` seals it."""
    prepared = PreparedData(tmp_path / "data")
    write_jsonl(prepared.traces_file("test"), [Trace("a", "1", (), "y").to_json()])
    for name in ("encoded/train/tokens.int32", "model/model.safetensors"):
        (prepared.folder / name).parent.mkdir(parents=True)
        (prepared.folder / name).write_bytes(name.encode())
    model = {"folder": "model", "tokenizer": "t", "files": seal(prepared.folder / "model")}
    outputs = seal(prepared.folder, ["traces/test.jsonl", "encoded/train/tokens.int32"])
    prepared.write_manifest({"outputs": outputs, "model": model})
    return prepared


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("traces/test.jsonl", lambda data: data.traces("test")),
        ("encoded/train/tokens.int32", lambda data: data.encoded("train")),
        ("model/model.safetensors", lambda data: data.model_folder),
        ("manifest.json", lambda data: data.manifest),
    ],
)
@pytest.mark.parametrize("change", ["flipped", "cut", "removed"])
def test_whoever_takes_a_damaged_file_hears_of_it(
    small: PreparedData, name: str, change: str, use: Callable[[PreparedData], object]
) -> None:
    """Prevents: token ids, weights or traces that changed on disk training another model without a word."""
    use(small)
    assert small.damage() == []
    file = small.folder / name
    good = file.read_bytes()
    if change == "removed":
        file.unlink()
    else:
        file.write_bytes(good.replace(b"o", b"p") if change == "flipped" else good[: len(good) // 2])
    if (name, change) == ("manifest.json", "removed"):
        assert not small.is_whole, "without it the data is made again"
        return
    with pytest.raises(DataError, match=rf"^{file}: .*; remove {small.folder}, and the same command prepares it again"):
        use(small)
    assert [line.split(":")[0] for line in small.damage(full=True)] == [str(file)]
