"""An interrupted `prepare` of many traces goes on from the chunks that are whole, and ends with the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import config_of
from tunix_rt.batches import encode_all
from tunix_rt.batches.chunks import encode_chunk
from tunix_rt.checked import hashes
from tunix_rt.inputs import ensure_prepared
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.tracking.registry import ModelStore


def test_a_kill_costs_at_most_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"prompt": f"{i} + 1?", "completion": f"so\n{i + 1}"} for i in range(200)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    path = f"dataset.source.train.path={tmp_path / 'mine.jsonl'}"
    config = config_of(["dataset=files", "dataset.name=x", path, "tokenizer=char", "tokenizer.characters=null"])
    store = ModelStore(config.tracking.uri)
    ensure_prepared(config, tmp_path / "whole", store)
    for name, value in (("MANY", 50), ("CHUNK", 8), ("usable_cores", lambda: 1)):
        monkeypatch.setattr(encode_all, name, value)
    made: list[int] = []

    def counted(*given: Any) -> Any:
        if len(made) == 12:
            raise KeyboardInterrupt
        made.append(len(given[2]))
        return encode_chunk(*given)

    monkeypatch.setattr("tunix_rt.batches.chunks.encode_chunk", counted)
    with pytest.raises(KeyboardInterrupt):
        ensure_prepared(config, tmp_path / "again", store)
    assert len(list((tmp_path / "again.part" / "chunks").iterdir())) == 12
    made[:] = made[:1]
    prepared = ensure_prepared(config, tmp_path / "again", store)
    kept = prepared.manifest["splits"]["train"]["count"]
    assert sum(made) - 8 == kept - 12 * 8, "what was whole is not encoded again"
    assert hashes(tmp_path / "again") == hashes(tmp_path / "whole")
    assert PreparedData(tmp_path / "again").is_whole and not (tmp_path / "again" / "chunks").exists()
