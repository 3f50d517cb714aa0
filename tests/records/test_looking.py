"""`runs`, `show`, `diff` and the others as tables and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.records.conftest import WORDS, Types
from tunix_rt.files import write_json, write_text
from tunix_rt.runs.folder import RunFolder


def made(name: str, accuracy: float | None, steps: int) -> RunFolder:
    run = RunFolder(Path("runs") / name)
    run.path.mkdir(parents=True)
    write_text(run.config, f"name: {run.path.parent.name}\ntraining: {{max_steps: {steps}, packing: true}}\n")
    run.begin()
    if accuracy is None:
        run.end("failed", "tracking.uri http://me:hunter2@host said no", 4)
        return run
    write_json(run.metrics, {"accuracy": {"value": accuracy}, "pass_at": {"4": {"value": accuracy / 2}}})
    write_json(run.environment, {"backend": {"torch": "2"}})
    run.end("finished")
    return run


def write_stages(run: RunFolder) -> None:
    placed = {"devices": ["a", "b"], "mesh": {"data": 2, "shard": 1, "tensor": 1}, "local_batch_size": 8}
    write_json(run.path / "stages.json", {"train": placed})


def names(types: Types, *words: str) -> list[str]:
    done = types("runs", *words, "--json")
    assert done.code == 0, done.err
    return [record["run"].partition("/")[2] for record in json.loads(done.out)]


def test_runs_are_filtered_and_sorted(work: Path, types: Types) -> None:
    made("e/aaa", 0.5, 10), made("e/bbb", 0.25, 20), made("f/ccc", None, 30)
    assert names(types) == ["aaa", "bbb", "ccc"]
    assert names(types, "--sort", "accuracy") == ["bbb", "aaa", "ccc"]
    assert names(types, "--sort", "accuracy", "--reverse") == ["aaa", "bbb", "ccc"], "those without one last"
    assert names(types, "--sort", "training.max_steps", "--reverse") == ["ccc", "bbb", "aaa"]
    assert names(types, "accuracy>0.3") == ["aaa"]
    assert names(types, "pass_at.4<=0.125") == ["bbb"]
    assert names(types, "training.max_steps>=20", "state=finished") == ["bbb"]
    assert names(types, "training.packing=true", "experiment!=e") == ["ccc"]
    assert names(types, "reason~said no") == ["ccc"]
    assert names(types, "backend=torch", "run~bb") == ["bbb"]
    write_stages(RunFolder(Path("runs/e/bbb")))
    assert names(types, "devices=2", "local_batch_size=8") == ["bbb"]
    shown = types("runs", "--columns", "training.max_steps")
    assert "local_batch_size" in shown.out
    assert "training.max_steps" in shown.out and "50.0 %" in shown.out
    assert "http://me:***@host said no" in shown.out
    assert "no run in runs/ is like that" in types("runs", "accuracy>2").out
    unknown = types("runs", "--sort", "acuracy")
    assert (unknown.code, "'acuracy': no run has it; there are: run, " in unknown.err) == (2, True)
    assert types("runs", "accuracy").code == 2


@pytest.mark.slow
def test_every_verb_that_reports_has_json(finished: RunFolder, types: Types) -> None:
    assert types(*WORDS, "generation.max_new_tokens=6", "seed=1", "dataset.seed=1").code == 0
    first, second = f"mine/{finished.path.name}", "last"
    shown = json.loads(types("show", first, "--json", "--predictions", "1").out)
    assert shown["status"]["state"] == "finished"
    assert shown["stages"]["train"]["steps_done"] == 6
    assert shown["config"]["training"]["max_steps"] == 6
    assert len(shown["predictions"]) == 1
    assert {"environment", "data", "metrics"} <= shown.keys()
    difference = json.loads(types("diff", first, second, "--json").out)
    seeds = {f"{section}seed": [0, 1] for section in ("", "dataset.", "training.", "generation.")}
    assert difference["config"]["different"] == seeds | {"generation.max_new_tokens": [8, 6]}
    assert difference["code"]["different"] == {}
    assert "sha256 of metrics.jsonl" in difference["results"]["different"]
    assert difference["data"]["different"]["splits.train.sha256"]
    assert list(difference["summary"]) == ["changed", "accuracy", "verdict", "data", "code"]
    table = types("diff", first, second, "--all").out
    assert "generation.max_new_tokens" in table
    assert "code: " in table and "values equal, nothing differs" in table
    assert types("diff", first, first, "--all").out.count("nothing differs") == 5
    rows = json.loads(types("rows", first, "1", "--json").out)
    assert (rows["step"], len(rows["traces"]) > 0) == (1, True)
    traces = json.loads(types("traces", *WORDS, "-n", "2", "--json").out)
    assert (len(traces["traces"]), traces["num_steps"]) == (2, 6)
    assert any(item["name"] == "quickstart" for item in json.loads(types("experiments", "--json").out))
