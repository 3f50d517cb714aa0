"""Later stages done again on a run that exists; data that changed behind a version; one set of bytes, three names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pipeline.conftest import Person
from tunix_rt.inference import loop
from tunix_rt.runs.folder import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_predicting_and_scoring_again_never_train(person: Person) -> None:
    base = person.run_folder()
    model = (base / "model" / "model.safetensors").stat().st_mtime_ns

    def newest() -> Path:
        return max(base.parent.iterdir(), key=lambda folder: (folder / "status.json").stat().st_mtime_ns)

    warm = person.types("predict", "last", "generation=sample", "generation.temperature=0.7")
    assert warm.code == 0, warm.err
    assert f"train: done by quickstart/{base.name}, which is used" in warm.err
    second = newest()
    record = json.loads((second / "stages.json").read_text())
    assert record["train"]["folder"] == f"../{base.name}" and "folder" not in record["predict"]
    assert "temperature: 0.7" in (second / "config.yaml").read_text()
    loose = person.types("evaluate", second.name, "evaluation=number", "evaluation.scorers.0.relative_tolerance=0.5")
    assert loose.code == 0, loose.err
    assert f"predict: done by quickstart/{second.name}, which is used" in loose.err
    third = newest()
    stages = json.loads((third / "stages.json").read_text())
    assert (stages["train"]["folder"], stages["predict"]["folder"]) == (f"../{base.name}", f"../{second.name}")
    assert "kind: number" in (third / "config.yaml").read_text()
    assert not (third / "predictions.jsonl").exists() and (third / "metrics.json").exists()
    assert (base / "model" / "model.safetensors").stat().st_mtime_ns == model
    again = person.types("evaluate", second.name, "evaluation=number", "evaluation.scorers.0.relative_tolerance=0.5")
    assert "finished before; nothing is run again" in again.err

    refused = person.types("predict", "last", "training.max_steps=9", "generation.temprature=1")
    assert refused.code == 2 and "training.max_steps: not among what can be changed here" in refused.err
    wrong = person.types("predict", "last", "generation.temprature=1")
    assert wrong.code == 2 and "did you mean 'temperature'?" in wrong.err
    choice = person.types("evaluate", "last", "evaluation=numbr")
    assert choice.code == 2 and "evaluation: no 'numbr'" in choice.err
    several = person.types("predict", "last", "generation.temperature=0.1,0.2")
    assert several.code == 2 and "one value at a time" in several.err

    (base / "stages.json").write_text(json.dumps(json.loads((base / "stages.json").read_text()) | {"train": {}}))
    gone = person.types("ask", third.name, "1*1=")
    assert gone.code == 2 and "which does not hold it any more (nothing, expected" in gone.err
    unfinished = person.types("predict", base.name, "generation.max_new_tokens=5")
    assert unfinished.code == 2 and "its stage train is not finished" in unfinished.err


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_steps_are_changed_without_asking_for_the_answers_again(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of six steps writes nothing that could be changed, so here nothing at all is asked."""

    def asked(*_: object) -> None:
        raise AssertionError("the answers are those of the run")

    base = person.run_folder()
    monkeypatch.setattr(loop, "_answers", asked)
    done = person.types("predict", "last", "generation.interventions={kinds: [corrupted], num_prompts: 2, filler: x}")
    assert done.code == 0, done.err
    (other,) = (folder for folder in base.parent.iterdir() if folder.is_dir() and folder != base)
    assert (other / "predictions.jsonl").read_bytes() == (base / "predictions.jsonl").read_bytes()
    assert json.loads((other / "metrics.json").read_text())["faithfulness"]["prompts"] == 0
    assert (other / "interventions.jsonl").read_bytes() == b""


@pytest.mark.slow
def test_data_that_changed_needs_a_new_version_and_bytes_have_one_name_each(
    person: Person, toy: tuple[str, ...]
) -> None:
    def write(last: str) -> None:
        lines = [
            {"trace_version": "1.0", "prompt": f"{a}+{b}=", "steps": [], "final_answer": str(a + b), "meta": {}}
            for a in range(10)
            for b in range(10)
        ]
        lines[-1]["final_answer"] = last
        (person.folder / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    words = (
        *("backend=torch", "name=mine", "dataset=jsonl", "dataset.name=mine", "dataset.source.train.path=mine.jsonl"),
        *toy,
    )
    write("18")
    assert person.types(*words, "tracking=mlflow", "tracking.num_traces=0", "tracking.wait_seconds=300").code == 0
    data = person.types("data", "last")
    assert data.code == 0 and "the same bytes everywhere" in data.out and "source of train" in data.out

    write("19")
    changed = person.types(*words, "tracking=mlflow")
    assert changed.code == 2
    assert "mine.jsonl: changed since version 1 of dataset mine was first used" in changed.err
    told = person.types("data", "last")
    assert told.code == 2 and "mine.jsonl: changed since the run used it" in told.err
    assert person.types(*words, "dataset.source.version=2").code == 0
    assert person.types("data", "last").code == 0

    newest = max((person.folder / "runs/mine").glob("*/data.json"), key=lambda file: file.stat().st_mtime_ns)
    traces = RunFolder(newest.parent).data_folder / "traces" / "test.jsonl"
    traces.write_text(traces.read_text().replace("=", "-", 1))
    torn = person.types("data", "last", "--json")
    assert torn.code == 2
    wrong = json.loads(torn.out)["mismatches"]
    assert len(wrong) == 1 and "traces/test.jsonl: changed since the run used it" in wrong[0]
