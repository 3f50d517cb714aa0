"""`reproduce`: EQUAL on each backend, and what changed since is named: a file, a step, a number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import TOY
from tests.records.conftest import Types
from tunix_rt.files import read_json, write_json
from tunix_rt.runs.folder import RunFolder, all_runs


@pytest.mark.slow
def test_a_jax_run_comes_out_equal(work: Path, types: Types) -> None:
    assert types("backend=jax", *TOY).code == 0
    done = types("reproduce", "last")
    assert done.code == 0, done.err
    assert done.out.startswith("EQUAL bit for bit: metrics.jsonl, model/config.json, ")
    first, second = all_runs(work / "runs")
    assert (second.path / "reproduction.json").exists()
    for name in ("metrics.jsonl", "model/model.safetensors", "predictions.jsonl", "metrics.json"):
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes()


@pytest.mark.slow
def test_a_torch_run_comes_out_equal_into_a_new_folder(finished: RunFolder, types: Types) -> None:
    recorded = {file: file.read_bytes() for file in finished.path.rglob("*") if file.is_file()}
    done = types("reproduce", finished.name, "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert (result["equal"], result["exact"], result["difference"]) == (True, True, None)
    assert {"metrics.jsonl", "predictions.jsonl", "baseline_predictions.jsonl", "items.jsonl"} <= {*result["compared"]}
    assert {"metrics.json", "model/model.safetensors"} <= {*result["compared"]}
    assert Path(result["folder"]) == finished.path.with_name(f"{finished.path.name}-2")
    assert {file: file.read_bytes() for file in recorded} == recorded


@pytest.mark.slow
def test_one_changed_number_is_found_with_file_step_and_values(finished: RunFolder, types: Types) -> None:
    lines = [json.loads(line) for line in finished.metrics_log.read_text().splitlines()]
    (line,) = (line for line in lines if line["step"] == 4)
    true = line["train/loss"]
    line["train/loss"] = true + 1e-9
    finished.metrics_log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    batches = finished.path / "predictions.batches.json"
    write_json(batches, read_json(batches) | {"batch_size": 3, "segments": [[0, 2], [4, 3]]})  # as after a change
    done = types("reproduce", "last")
    assert done.code == 5
    assert (finished.path.with_name(f"{finished.path.name}-2") / batches.name).read_bytes() == batches.read_bytes()
    assert f"DIFFERENT: metrics.jsonl step 4 train/loss: {true + 1e-9!r} there, {true!r} here\n" in done.out


@pytest.mark.slow
def test_a_character_changed_in_the_data_is_named_and_nothing_is_run(finished: RunFolder, types: Types) -> None:
    file = Path("mine.jsonl")
    text = file.read_text()
    file.write_text(text.replace('"final_answer": "40"', '"final_answer": "41"'))
    done = types("reproduce", "last")
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("error: dataset.source.train: mine.jsonl changed since the run: ")
    file.write_text(text)
    prepared = finished.data_folder / "traces" / "train.jsonl"
    content = prepared.read_text()
    assert '"21+21="' in content
    prepared.write_text(content.replace('"21+21="', '"21+31="', 1))
    changed = types("reproduce", "last")
    assert changed.code == 2
    assert f"error: {prepared}: changed since the run" in changed.err
    prepared.unlink()
    assert f"error: {prepared}: missing" in types("reproduce", "last").err
    assert len(all_runs(Path("runs"))) == 1


@pytest.mark.slow
def test_prepared_data_that_is_gone_is_prepared_again_to_the_same_bytes(finished: RunFolder, types: Types) -> None:
    folder = finished.data_folder
    (folder / "manifest.json").unlink()
    done = types("reproduce", "last")
    assert done.code == 0, done.err
    assert "EQUAL bit for bit" in done.out


@pytest.mark.slow
def test_other_code_and_versions_are_told_and_refused_if_strict(finished: RunFolder, types: Types) -> None:
    record = read_json(finished.environment)
    record["packages"]["numpy"] = "1.0"
    record["lock_sha256"] = "0000"
    write_json(finished.environment, record)
    strict = types("reproduce", "last", "--strict")
    assert strict.code == 5
    assert "warning: not as recorded: packages.numpy: 1.0 then, " in strict.err
    assert "lock_sha256: 0000 then" in strict.err
    assert len(all_runs(Path("runs"))) == 1
    done = types("reproduce", "last")
    assert done.code == 0
    assert "warning: not as recorded: packages.numpy: 1.0 then, " in done.err


@pytest.mark.slow
def test_another_machine_is_compared_within_tolerances(finished: RunFolder, types: Types) -> None:
    done = types("reproduce", finished.name, "hardware.threads=2")
    assert done.code == 0, done.err
    assert "warning: not as recorded: backend.threads: 1 then, 2 now" in done.err
    assert "EQUAL within tolerances, since the environments differ (losses of the first 50 steps within 1%" in done.out
    lines = finished.metrics_log.read_text()
    first = json.loads(lines.splitlines()[0])["train/loss"]
    finished.metrics_log.write_text(lines.replace(repr(first), repr(first * 1.05), 1))
    far = types("reproduce", finished.name, "hardware.threads=2")
    assert far.code == 5
    assert "DIFFERENT: metrics.jsonl step 1 train/loss: " in far.out


@pytest.mark.slow
def test_a_time_budget_is_repeated_by_its_step(types: Types) -> None:
    """The clock would end it elsewhere; and the schedule is still that of all the steps."""
    words = ("backend=torch", *TOY, "training.max_steps=100000", "training.max_seconds=0.3", "checkpoint.log_every=5")
    assert types(*words, "training.evaluate_every=null").code == 0
    (recorded,) = all_runs(Path("runs"))
    steps = recorded.stages()["train"]["steps_done"]
    assert steps < 100_000
    done = types("reproduce", "last")
    assert done.code == 0, done.out
    again = all_runs(Path("runs"))[-1]
    assert again.stages()["train"]["steps_done"] == steps
    assert again.metrics_log.read_bytes() == recorded.metrics_log.read_bytes()


def test_what_cannot_be_reproduced(work: Path, types: Types) -> None:
    run = RunFolder(work / "runs" / "e" / "abc")
    run.path.mkdir(parents=True)
    run.begin()
    run.end("failed", "because", 4)
    done = types("reproduce", "last")
    assert (done.code, "e/abc: not finished" in done.err) == (2, True)


@pytest.mark.slow
def test_only_where_it_runs_may_differ(finished: RunFolder, types: Types) -> None:
    done = types("reproduce", "last", "seed=1")
    assert done.code == 2
    assert "seed: not among what can be changed here: only what changes no result may differ" in done.err
    stop = types("reproduce", "last", "run.stop_step=2")
    assert (stop.code, "only what changes no result" in stop.err) == (2, True)
