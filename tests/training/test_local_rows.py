"""Where `auto` begins, that a run which goes on takes the same rows, and that fewer of them are said and recorded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import config_of
from tunix_rt.backends.interface import Placement
from tunix_rt.backends.mesh import MeshShape
from tunix_rt.machine import usable_memory
from tunix_rt.models.initialise import write_fresh
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.sessions import begin_session, machine_of, note_rows, recorded_rows
from tunix_rt.training import local_rows
from tunix_rt.training.local_rows import LocalRows, placed


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (folder := tmp_path / "model").mkdir()
    write_fresh(folder, config_of().model.source, 17, 0, 0, 1)  # type: ignore[arg-type]
    return folder


def rows_of(engine: Any, recorded: int | None = None, *words: str) -> tuple[LocalRows, list[tuple[int, int]]]:
    noted: list[tuple[int, int]] = []
    config = config_of(["backend=torch", "hardware=cpu", *words])
    parts = (config.backend, config.hardware, config.optimizer, config.model.adapter)
    return LocalRows(engine, *parts, False, recorded, lambda step, rows: noted.append((step, rows))), noted


def engine_of(*sizes: int) -> Any:
    mesh = MeshShape(*sizes)
    devices = tuple(f"cpu {number}" for number in range(mesh.size))
    return SimpleNamespace(placement=Placement("cpu", devices, "float32", 1, mesh), rows_at_once=None)


def test_all_rows_at_once_where_they_fit_else_as_many_as_do(model: Path) -> None:
    engine = engine_of()
    rows, _ = rows_of(engine)
    rows.begin(model, 16, 72)
    assert (engine.rows_at_once, rows.facts()["local_batch_size"]) == (None, 16)
    rows.begin(model, 10**7, 4096)
    one = engine.rows_at_once
    assert rows.facts()["local_batch_size"] == one
    assert 1 < one < 10**7
    assert one * 4096 * 4 * 1000 < usable_memory(), "a token of this model takes more than a thousand numbers"
    several = engine_of(2, 2, 1)
    rows_of(several)[0].begin(model, 10**7, 4096)
    assert 1 < several.rows_at_once < one, "the devices of a host share its memory"


def test_what_is_declared_stays_and_what_was_recorded_is_taken_again(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of()
    rows_of(engine, 3)[0].begin(model, 16, 72)
    assert engine.rows_at_once == 3
    monkeypatch.setattr(local_rows, "usable_memory", lambda: 1)  # less than when it was recorded
    (rows := rows_of(engine, 16)[0]).begin(model, 16, 72)
    assert (engine.rows_at_once, rows.at_once) == (None, 16), "all of them, as before"
    rows_of(engine)[0].begin(model, 16, 72)
    assert engine.rows_at_once == 1
    engine.rows_at_once = 5  # as its backend was created
    rows_of(engine, 3, "hardware.local_batch_size=5")[0].begin(model, 16, 72)
    assert engine.rows_at_once == 5


def test_fewer_rows_are_said_and_recorded_once(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = engine_of(2)
    rows, noted = rows_of(engine)
    rows.begin(model, 16, 72)
    rows.watch(1)
    engine.rows_at_once = 4
    rows.watch(2)
    rows.watch(3)
    assert noted == [(2, 4)]
    assert capsys.readouterr().err.count("from step 2 on it computes 4 rows at once") == 1

    run, backend = RunFolder(tmp_path / "run"), {"torch": "1"}
    run.path.mkdir()
    assert recorded_rows(run, placed(engine)) is None
    begin_session(run, "train", backend, 1, 10, placed(engine, 8))
    assert recorded_rows(run, placed(engine)) == 8
    assert machine_of(run) is not None
    note_rows(run, backend | {"local_batch_size": "4"}, 2, placed(engine, 4))
    assert recorded_rows(run, placed(engine)) == 4
    assert machine_of(run) is None, "the same bits cannot be expected"
    assert recorded_rows(run, placed(engine_of())) is None, "of other devices"
