"""A prepared folder is found whole by its manifest, and gives back the traces that were written."""

from __future__ import annotations

from pathlib import Path

import pytest

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
