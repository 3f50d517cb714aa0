"""One command: everything is there afterwards; again: nothing is run twice; changed: only what must be."""

from __future__ import annotations

import gc
import json
import signal
import sqlite3
import weakref
from pathlib import Path
from typing import Any

import pytest

import tunix_rt
from tests.conftest import TOY
from tests.pipeline.conftest import Person
from tunix_rt import faults
from tunix_rt.backends.torch.backend import TorchBackend

TRACKED = (*(word for word in TOY if word != "tracking=none"), "tracking.num_traces=2", "tracking.wait_seconds=300")


@pytest.mark.parametrize(
    "backend", [pytest.param("jax", marks=pytest.mark.slow), pytest.param("torch", marks=pytest.mark.measured)]
)
def test_one_command_leaves_everything(backend: str, person: Person) -> None:
    done = person.starts("+experiment=quickstart", f"backend={backend}", *TRACKED)
    assert done.code == 0, done.err
    for shown in ("accuracy", "stopped by itself", "run folder", "mlflow ui", "python -m tunix_rt ask"):
        assert shown in done.out
    run = person.run_folder()
    for name in (
        "config.yaml",
        "stages.json",
        "environment.json",
        "data.json",
        "metrics.jsonl",
        "timings.jsonl",
        "model/config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
        "model/generation_config.json",
        "predictions.jsonl",
        "items.jsonl",
        "metrics.json",
        "scores.json",
        "report.md",
        "report.html",
        "figures/loss.png",
    ):
        assert (run / name).is_file(), name
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if "train/loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in steps if "eval/loss" in line] == [3, 6]
    stages = person.reads("stages.json")
    assert [(name, record["state"]) for name, record in stages.items()] == [
        (name, "done") for name in ("prepare", "train", "predict", "evaluate", "report")
    ]
    assert stages["train"]["num_steps"] == 6
    assert "auto" not in json.dumps(person.reads("environment.json")["backend"])
    status = person.reads("status.json")
    assert (status["state"], status["exit_code"]) == ("finished", 0)
    with sqlite3.connect(person.folder / "mlflow.db") as store:
        (row,) = store.execute("select status from runs").fetchall()
    store.close()
    assert row == ("FINISHED",)
    plain_transformers_continues_alike(run)


def plain_transformers_continues_alike(run: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(run / "model")
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    first = json.loads((run / "predictions.jsonl").read_text().splitlines()[0])
    prompt = tokenizer(first["prompt"], return_tensors="pt")["input_ids"]
    made = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False)
    assert tokenizer.decode(made[0, prompt.shape[1] :], skip_special_tokens=True) == first["completion"]


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_the_same_command_again_runs_nothing_and_new_starts_anew(person: Person) -> None:
    before = {file: file.stat().st_mtime_ns for file in person.run_folder().rglob("*") if file.is_file()}
    again = person.types("backend=torch", *TOY)
    assert again.code == 0
    assert "finished before; nothing is run again" in again.err
    after = {file: file.stat().st_mtime_ns for file in person.run_folder().rglob("*") if file.is_file()}
    assert {f.name for f in before if before[f] != after.get(f)} <= {".lock"}
    first = person.run_folder()
    assert person.types("backend=torch", *TOY, "run.new=true").code == 0
    twin = first.with_name(f"{first.name}-2")
    for name in ("metrics.jsonl", "predictions.jsonl", "metrics.json", "model/model.safetensors"):
        assert (first / name).read_bytes() == (twin / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_a_run_that_was_told_to_stop_early_is_another_run(person: Person) -> None:
    """Prevents: the model of two steps returned as the result of six, and the other way round."""
    whole = person.run_folder()
    assert person.types("backend=torch", *TOY, "run.stop_step=2").code == 0
    (stopped,) = (file.parent for file in whole.parent.glob("*/status.json") if file.parent != whole)
    done = [json.loads((run / "stages.json").read_text())["train"]["steps_done"] for run in (whole, stopped)]
    assert done == [6, 2]
    again = person.types("reproduce", stopped.name)
    assert again.code == 0, again.out
    assert "finished before" in person.types("backend=torch", *TOY).err


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_a_later_stage_changed_alone_reuses_the_trained_model(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    first = person.run_folder()
    weights: list[weakref.ref[Any]] = []
    held: list[int] = []
    load = TorchBackend.load

    def watched(self: TorchBackend, *arguments: Any) -> Any:
        gc.collect()
        held.append(sum(weight() is not None for weight in weights))
        state = load(self, *arguments)
        weights.append(weakref.ref(next(iter(state.model.weights.values()))))
        return state

    monkeypatch.setattr(TorchBackend, "load", watched)
    done = person.types("backend=torch", *TOY, "generation.max_new_tokens=6", "generation.baseline=true")
    assert done.code == 0, done.err
    assert held == [0, 0], "the model of the baseline is still in memory while the next is loaded"
    assert f"train: done by quickstart/{first.name}, which is used" in done.err
    (second,) = (path for path in first.parent.iterdir() if path.is_dir() and path != first)
    assert not (second / "model").exists()
    assert json.loads((second / "stages.json").read_text())["train"]["folder"] == f"../{first.name}"
    scored = person.types("backend=torch", *TOY, "evaluation=number")
    assert f"predict: done by quickstart/{first.name}, which is used" in scored.err
    assert "accuracy" in scored.out


def test_a_stopped_run_goes_on_where_it_was_and_ends_the_same(person: Person) -> None:
    """Bit-identical: the interrupted run's log and weights equal those of one that was never stopped."""
    words = (
        "backend=torch",
        *TOY,
        "training.max_steps=9",
        "training.evaluate_every=null",
        "checkpoint.save_every=2",
    )
    assert person.types(*words, "run.root=whole").code == 0
    (whole,) = (person.folder / "whole" / "quickstart").glob("*/status.json")
    for number, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        stopped = person.starts(*words, env={faults.POINT: f"dispatched step:7:{int(number)}"})
        assert stopped.code == code, stopped.err
        state = person.reads("status.json")["state"]
        assert state == ("interrupted" if number == signal.SIGTERM else "running")
        assert "killed" in person.types("runs").out or number == signal.SIGTERM
        done = person.types(*words)
        assert done.code == 0, done.err
        assert "train: going on from step" in done.err
        for name in ("metrics.jsonl", "model/model.safetensors", "predictions.jsonl", "metrics.json"):
            assert (whole.parent / name).read_bytes() == (person.run_folder() / name).read_bytes(), name
        (person.folder / "runs").rename(person.folder / f"stopped by {number}")


@pytest.mark.slow
def test_from_a_notebook(work: Path) -> None:
    result = tunix_rt.run("quickstart", ["backend=torch", *TOY])
    assert result.metrics["n"] == len(result.predictions) == 4
    assert result.folder.parts[0] == "runs"
    assert (result.folder / "report.md").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_looking_at_a_run(person: Person) -> None:
    name = f"quickstart/{person.run_folder().name}"
    assert name in person.types("runs").out
    assert "# " in person.types("show", "last").out
    assert "max_steps: 6" in person.types("show", "last", "--config").out
    two = json.loads(person.types("show", "quickstart", "--predictions", "2", "--json").out)["predictions"]
    said = person.types("show", "quickstart", "--predictions", "2").out
    assert len(two) == 2 and all(f"{one['id']}: {one['reason']}, " in said for one in two)
    asked = person.types("ask", "last", "47*86=")
    assert asked.code == 0
    assert asked.out.strip()
    typed = person.types("ask", "last", stdin="47*86=\n12*12=\n")
    assert typed.out.count("? ") == 3
    assert person.types("ask", "last", "47ä86=").code == 2
    assert "step 1: 8 traces" in person.types("rows", "last", "1").out
    traces = json.loads(person.types("rows", "last", "1", "--json").out)["traces"]
    assert len(traces) == 8
    assert all(trace["steps"] for trace in traces)
    assert "the run has steps 1 to 6" in person.types("rows", "last", "7").err
    shown = person.types("traces", *TOY, "-n", "1")
    assert shown.code == 0, shown.err
    for expected in ("70 tokens, 64 of them targets", "supervised", "packing", "tokens per trace"):
        assert expected in shown.out
