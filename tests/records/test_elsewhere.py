"""A record that is somewhere else, or not whole any more: moved, read from another directory, cut in half."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.records.conftest import WORDS, Types
from tunix_rt.runs.disk import reclaimable
from tunix_rt.runs.folder import RunFolder, all_runs


@pytest.mark.slow
def test_a_run_is_the_same_from_any_directory_and_after_a_move(
    finished: RunFolder, types: Types, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents: `verify` from elsewhere that calls a good run WRONG, and `gc` from elsewhere that takes its data."""
    for name in ("runs", "data"):
        shutil.move(work / name, work / "moved" / name)
    (work / "elsewhere").mkdir()
    monkeypatch.chdir(work / "elsewhere")
    root, data = work / "moved" / "runs", work / "moved" / "data"
    there = ("--root", str(root))
    verified = types("verify", "last", *there)
    assert verified.out.endswith("VERIFIED last\n"), verified.out + verified.err
    assert types("ask", "last", "1+1=", *there).code == 0
    assert types("rows", "last", "1", *there).code == 0
    assert types("export", "last", "all.zip", *there).code == 0
    assert {item.kind for item in reclaimable(root, data)} == {"checkpoints of a finished run"}
    scored = types("evaluate", "mine", "evaluation=number", *there)
    assert scored.code == 0, scored.err
    assert [run.root for run in all_runs(root)] == [root, root], "beside the run that was asked for"
    assert not Path("runs").exists() and not Path("data").exists()


@pytest.mark.slow
def test_another_root_never_answers(finished: RunFolder, types: Types, work: Path) -> None:
    """Prevents: `evaluate RUN --root OTHER` that shows the run of the same name in `runs/`, as 'finished before'."""
    assert types(*WORDS, "evaluation=number").code == 0
    shutil.copytree(work / "runs", work / "other")
    shutil.rmtree(next(run.path for run in all_runs(work / "other") if run.identity != finished.identity))
    done = types("evaluate", "mine", "evaluation=number", "--root", "other")
    assert done.code == 0, done.err
    assert "finished before" not in done.err
    assert len(all_runs(work / "other")) == 2


@pytest.mark.slow
def test_what_is_cut_in_half_is_done_again_and_said(finished: RunFolder, types: Types) -> None:
    """Prevents: 'finished before' of a run whose model, predictions or scores are not whole any more."""
    names = ("model/model.safetensors", "metrics.jsonl", "predictions.jsonl", "items.jsonl", "metrics.json")
    whole = {name: (finished.path / name).read_bytes() for name in names}
    assert {*names[:2]} <= finished.stages()["train"]["outputs"].keys()
    for stage, name in zip(("train", "train", "predict", "evaluate", "evaluate"), names, strict=True):
        (finished.path / name).write_bytes(whole[name][: len(whole[name]) // 2])
        done = types(*WORDS)
        assert done.code == 0, done.err
        assert f"{finished.path / name}: damaged" in done.err and f"; {stage} is done again" in done.err
        assert {name: (finished.path / name).read_bytes() for name in names} == whole
    assert "finished before; nothing is run again" in types(*WORDS).err
    bits = bytearray(whole[names[0]])
    bits[-1] ^= 1
    (finished.path / names[0]).write_bytes(bits)
    other = types(*WORDS, "generation.max_new_tokens=5")
    assert other.code == 0, other.err
    assert "train: done by" not in other.err, "a damaged model is nobody's"
    assert types("verify", all_runs(Path("runs"))[-1].name).code == 0


@pytest.mark.slow
def test_a_name_of_several_runs_says_which_it_takes_and_rm_takes_none(finished: RunFolder, types: Types) -> None:
    """Prevents: `export half` that zips the re-scored run, and `rm half` that removes whichever is newest."""
    assert types("evaluate", "mine", "evaluation=number").code == 0
    other = all_runs(Path("runs"))[-1]
    shown = types("show", "mine", "--config")
    assert f"'mine' names 2 runs; taking the newest: {other.name}" in shown.err
    refused = types("rm", "mine", "--yes")
    assert refused.code == 2
    assert f"several runs fit (there are: {finished.name}, {other.name})" in refused.err
    assert len(all_runs(Path("runs"))) == 2
    first, second = json.loads(types("runs", "--json").out)
    assert first["from"] is None
    assert second["from"].startswith(f"mine/{finished.path.name[:4]}…: evaluation.scorers.0.kind=number")
    table = types("runs").out
    assert "from" in table and "reason" not in table, "no column of nothing"
