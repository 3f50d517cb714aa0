"""`reproduce` of a whole sweep: its members once more, then their ranking; EQUAL, or where it differs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.records.conftest import Types
from tunix_rt.errors import InputError
from tunix_rt.files import read_json, write_json
from tunix_rt.records.reproduce import Reproduction
from tunix_rt.runs.folder import RunFolder, all_runs
from tunix_rt.runs.sweep import MemberRecord, SweepFolder, find_sweep
from tunix_rt.sweeps import reproduce
from tunix_rt.sweeps.ranking import Member, ranked, ranking


@pytest.fixture
def sweep(finished: RunFolder) -> SweepFolder:
    """A sweep that ended, of that run and of a member that failed."""
    folder = SweepFolder(finished.path.parent / "sweep-abcdef012345")
    records = [
        MemberRecord(("seed=0",), "finished", str(finished.path)),
        MemberRecord(("seed=1",), "failed", None, "no"),
    ]
    write_json(folder.path / "sweep.json", {"metric": "accuracy", "direction": "maximize", "varying": ["seed"]})
    folder.write_ranking(ranking(ranked([Member.of(record) for record in records], "accuracy", "maximize")))
    folder.end("failed")
    return folder


@pytest.mark.slow
def test_every_member_is_run_again_and_the_ranking_made_again(sweep: SweepFolder, types: Types) -> None:
    done = types("reproduce", sweep.name)
    assert done.code == 0, done.err
    assert f"EQUAL bit for bit: 1 members and the ranking of {sweep.name}\n" in done.out
    assert "member 1 of 1: seed=0" in done.err
    assert "left out, since it did not finish: seed=1: failed" in done.err
    record = read_json(sweep.path / "reproduction.json")
    assert (record["equal"], record["exact"], record["differences"]) == (True, True, [])
    _, again = all_runs(Path("runs"))
    assert record["members"][0]["folder"].endswith(again.path.name)


def test_a_number_of_the_ranking_and_a_member_that_differ_are_named(
    sweep: SweepFolder,
    finished: RunFolder,
    types: Types,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    again = Reproduction(finished.name, str(finished.path), True, True, [], None, [])
    monkeypatch.setattr(reproduce, "reproduce", lambda *_: again)
    assert types("reproduce", sweep.path.name).code == 0
    lines = read_json(sweep.ranking)
    true = lines[0]["value"]
    write_json(sweep.ranking, [lines[0] | {"value": true + 0.25}, lines[1]])
    changed = types("reproduce", "mine/sweep-abc")
    assert changed.code == 5
    assert changed.out.startswith(f"DIFFERENT: ranking.json 0.value: {true + 0.25} there, {true} here\n")

    other = Reproduction(
        finished.name, str(finished.path), False, False, [], "items.jsonl id a correct: …", ["lock: a, b"]
    )
    monkeypatch.setattr(reproduce, "reproduce", lambda *_: other)
    done = types("reproduce", str(sweep.path), "--json")
    assert done.code == 5
    result = json.loads(done.out)
    assert result["differences"] == ["seed=0: items.jsonl id a correct: …"], "a ranking is compared bit for bit or not"


def test_what_cannot_be_reproduced(sweep: SweepFolder, types: Types) -> None:
    write_json(sweep.path / "sweep.json", sweep.status() | {"state": "interrupted"})
    done = types("reproduce", sweep.name)
    assert (done.code, "the sweep has not ended; its command again goes on with it" in done.err) == (2, True)
    sweep.end("finished")
    sweep.write_ranking([line | {"state": "failed", "folder": None} for line in read_json(sweep.ranking)])
    assert "no member finished" in types("reproduce", sweep.name).err
    assert "no such run" in types("reproduce", "mine/sweep-9").err


def test_a_sweep_is_named_by_path_name_or_prefix(tmp_path: Path) -> None:
    for name in ("a/sweep-11", "a/sweep-12", "b/sweep-12"):
        write_json(tmp_path / name / "sweep.json", {})
    for word in (str(tmp_path / "a" / "sweep-11"), "a/sweep-11", "sweep-11", "a/sweep-11"):
        sweep = find_sweep(tmp_path, word)
        assert sweep is not None and sweep.name == "a/sweep-11", word
    assert find_sweep(tmp_path, "a") is find_sweep(tmp_path, "sweep-2") is None
    with pytest.raises(InputError, match="'a/sweep-1' names 2 sweeps: a/sweep-11, a/sweep-12"):
        find_sweep(tmp_path, "a/sweep-1")
