"""A trained model that is asked other data, and a model that is asked as it is: runs like any other."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.records.conftest import WORDS, Types, traces
from tunix_rt.files import read_json
from tunix_rt.runs.folder import RunFolder, all_runs
from tunix_rt.traces.prediction import read_predictions

NEW = ("dataset=files", "dataset.name=new", "dataset.source.test.path=new.jsonl")
START = ("model=from_path", "model.source.path=start", "tokenizer=pretrained")


def asked(types: Types, *words: str) -> RunFolder:
    done = types(*words)
    assert done.code == 0, done.err
    return all_runs(Path("runs"))[-1]


def prompts(file: Path) -> set[str]:
    return {json.loads(line)["prompt"] for line in file.read_text("utf-8").splitlines()}


@pytest.mark.slow
def test_a_trained_model_asked_other_data_is_a_run_beside_its_own(finished: RunFolder, types: Types) -> None:
    """Half of the new prompts are those of the file that it was trained on: which ones is known from its traces."""
    Path("new.jsonl").write_text(traces(90)[len(traces(45)) :])
    run = asked(types, "predict", finished.name, *NEW)
    assert run.path.parent == finished.path.parent and run.path != finished.path
    learned = prompts(finished.data_folder / "traces/train.jsonl") | prompts(
        finished.data_folder / "traces/validation.jsonl"
    )
    seen = run.stages()["predict"]["seen_in_training"]
    assert seen["prompts"] == 45 and seen["runs"] == [finished.name]
    assert seen["seen"] == len(prompts(Path("new.jsonl")) & learned) > 0
    assert f"Nothing was trained: `the model of {finished.name}` was asked as it is." in types("show", run.name).out
    assert [file.name for file in run.model.iterdir()] == ["start_model.json"], "no copy of the weights"

    for command in ("verify", "reproduce"):
        done = types(command, run.name)
        assert done.code == 0, done.out + done.err
    assert "nothing was trained" in types("rows", run.name, "1").err
    assert "nothing is to be merged" in types("merge", run.name, "merged").err
    own, one = (types("ask", name, "7+7=").out for name in (finished.name, run.name))
    assert own == one != ""
    assert any(f"{finished.path.name[:4]}…: asked new" in line for line in types("runs").out.splitlines())

    refused = types("rm", finished.name, "--yes")
    assert refused.code == 2 and f"needed by {run.name} (model)" in refused.err
    shutil.rmtree(finished.data_folder)
    unknown = asked(types, "predict", finished.name, *NEW, "dataset.limit.test=2")
    facts = unknown.stages()["predict"]["seen_in_training"]
    assert facts["seen"] is None and "are not there any more" in facts["not_compared"][0]
    shutil.rmtree(finished.model)
    gone = types("predict", finished.name, *NEW)
    assert gone.code == 2 and "no trained model there" in gone.err
    assert "no such model folder" in types("reproduce", run.name).err


def test_a_run_of_many_devices_is_asked_on_those_that_are_here(finished: RunFolder, types: Types) -> None:
    """A launcher's mesh, recorded with `all`, cannot be filled by one CPU."""
    text = finished.config.read_text("utf-8")
    changed = re.sub(r"(?m)^(\s+)shard: 1$", r"\1shard: 2", re.sub(r"(?m)^(\s+)data: -1$", r"\1data: 1", text))
    finished.config.write_text(re.sub(r"(?m)^(\s+)devices: 1$", r"\1devices: all", changed))
    assert types("ask", finished.name, "7+7=").code == 0
    done = types("predict", finished.name, "generation.max_new_tokens=3")
    assert done.code == 0 and "hardware.devices=all, mesh 1 x 2 x 1) are not here; used: " in done.err, done.err


def test_an_empty_question_begins_no_conversation(finished: RunFolder, types: Types) -> None:
    """Prevents: a script whose variable is empty waits for somebody to type."""
    done = types("ask", finished.name, "")
    assert done.code == 2 and "the prompt is empty" in done.err


def test_a_model_as_it_is_answers_as_the_start_of_its_training_did(finished: RunFolder, types: Types) -> None:
    """The baseline of the finished run is the oracle: another job, of the model in the prepared data."""
    shutil.copytree(finished.data_folder / "model", "start")
    oracle = list(read_predictions(finished.baseline_predictions))
    run = asked(types, *WORDS, *START, "name=start", "training=none")
    assert list(read_predictions(run.predictions)) == oracle
    assert not run.baseline_predictions.exists(), "it is its own baseline"
    assert read_json(run.metrics)["accuracy"] == read_json(finished.baseline_metrics)["accuracy"]
    again = types(*WORDS, *START, "name=start", "training.max_steps=0", "optimizer.learning_rate=0.5")
    assert "finished before" in again.err, "the same run, however nothing is trained"
    exported = types("export", run.name, "x.zip")
    assert exported.code == 0 and types("verify", "x.zip").code == 0
    (Path("start") / "config.json").write_text((Path("start") / "config.json").read_text() + "\n")
    changed = types("ask", run.name, "1+1=")
    assert changed.code == 2 and "config.json" in changed.err


def test_a_plan_and_traces_of_a_model_as_it_is(finished: RunFolder, types: Types) -> None:
    shutil.copytree(finished.data_folder / "model", "start")
    words = (*WORDS, *START, "training=none")
    plan = json.loads(types("plan", *words, "--json").out)
    assert plan["num_steps"] == 0 and set(plan["phases"]) == {"load", "predict"} and plan["measured"] is None
    shown = json.loads(types("traces", *words, "-n", "1", "--json").out)
    assert (shown["split"], len(shown["traces"])) == ("test", 1)


@pytest.mark.acceptance
@pytest.mark.parametrize("adapter", [(), ("model/adapter=lora", "model.adapter.quantize=nf4")])
def test_both_backends_give_the_same_numbers(finished: RunFolder, types: Types, adapter: tuple[str, ...]) -> None:
    shutil.copytree(finished.data_folder / "model", "start")
    words = (*WORDS, *START, "name=start", "training=none", *adapter)
    one, other = (
        list(read_predictions(asked(types, *words, f"backend={name}").predictions)) for name in ("torch", "jax")
    )
    assert [p.completion for p in one] == [p.completion for p in other]
    for left, right in zip(one, other, strict=True):
        assert left.logprobs == pytest.approx(right.logprobs, abs=2e-4)
