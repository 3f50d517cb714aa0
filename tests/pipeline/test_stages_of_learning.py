"""Two experiments in one declaration: the earlier one runs first, once, and the later one begins from its model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import TOY
from tests.pipeline.conftest import Person, made_in
from tunix_rt import experiment, faults
from tunix_rt.errors import InUse
from tunix_rt.models.content import folder_digest
from tunix_rt.runs.folder import RunFolder, all_runs
from tunix_rt.runs.origin import ancestors, begun_from

SMALL = [word for word in TOY if not word.startswith(("hardware", "tracking"))]
FILE = f"""\
# @package _global_
defaults:
  - override /model: run
  - override /tokenizer: pretrained
name: later
model: {{source: {{experiment: quickstart, overrides: {json.dumps([*SMALL, "training.max_steps=3"])}}}}}
"""
LATER = ("+experiment=later", "backend=torch", *TOY, "optimizer.learning_rate=1e-4")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stages")
    (folder / "conf/experiment").mkdir(parents=True)
    (folder / "conf/experiment/later.yaml").write_text(FILE, "utf-8")
    return made_in(folder, *LATER)


@pytest.fixture
def both(workplace: Path, work: Path) -> tuple[RunFolder, RunFolder]:
    """The earlier and the later run, in a copy of the folder where one command made them."""
    shutil.copytree(workplace, work, dirs_exist_ok=True)
    first, second = all_runs(Path("runs"))
    return first, second


@pytest.mark.slow
def test_one_command_runs_both_and_the_later_one_begins_from_the_earlier_model(
    both: tuple[RunFolder, RunFolder],
) -> None:
    first, second = both
    assert [run.path.parent.name for run in both] == ["quickstart", "later"]
    assert [run.status()["state"] for run in both] == ["finished"] * 2
    assert [run.stages()["train"]["steps_done"] for run in both] == [3, 6]
    hashes = second.data_hashes()
    assert hashes["sources"] == {"model.source": first.stages()["train"]["identity"]}
    assert hashes["start_model"] == folder_digest(first.model) != folder_digest(second.model)
    origin = begun_from(second)
    assert origin is not None and origin.path == first.path.resolve() and ancestors(second) == [origin]
    assert json.loads(second.data.read_text())["begins_from"]["folder"] == f"../../{first.name}"
    link = f"| begins from | the model of [`{first.name}`](../../{first.name}/report.md) |"
    assert link in second.report.read_text("utf-8") and (second.path / f"../../{first.name}/report.md").exists()


@pytest.mark.acceptance
@pytest.mark.usefixtures("both")
def test_again_nothing_is_run_and_a_change_of_the_earlier_one_is_another_run_of_both(person: Person) -> None:
    assert "later/" in person.types(*LATER).err
    assert len(all_runs(Path("runs"))) == 2
    again = person.types(*LATER, "optimizer.learning_rate=2e-4")
    assert "finished before; nothing is run again" in again.err and len(all_runs(Path("runs"))) == 3
    words = ",".join(f"'{word}'" for word in (*SMALL, "training.max_steps=2"))
    assert person.types(*LATER, f"model.source.overrides=[{words}]").code == 0
    assert len(all_runs(Path("runs"))) == 5


@pytest.mark.slow
def test_what_is_recorded_is_verified_and_reproduced_from_the_earlier_one_on(
    both: tuple[RunFolder, RunFolder], person: Person
) -> None:
    first, second = both
    shutil.rmtree("conf")  # a record needs no file of an experiment
    assert f"begins from: the model of {first.name}, trained as declared" in person.types("verify", "later").out
    again = person.types("reproduce", "later")
    assert again.code == 0 and again.out.startswith("EQUAL bit for bit"), again.out
    assert f"what it begins from run again in {first.path}-2" in again.out.replace(f"{person.folder}/", "")
    assert f"needed by {second.name} (model)" in person.types("rm", first.name, "--yes").err
    gone = json.loads(person.types("gc", "--json").out)["items"]
    assert {Path(item["path"]).name for item in gone} == {"checkpoints"}
    exported = person.types("export", second.name)
    assert exported.code == 0, exported.err
    assert "whose run is not here" in person.types("verify", f"runs/later-{second.path.name}.zip").out
    record = json.loads((first.path / "stages.json").read_text())
    record["train"]["identity"] = "0" * 12
    (first.path / "stages.json").write_text(json.dumps(record))
    assert "was trained as 000000000000" in person.types("verify", second.name).out


@pytest.mark.acceptance
@pytest.mark.usefixtures("both")
def test_what_is_asked_of_its_model_and_of_the_earlier_one_as_it_is(person: Person) -> None:
    assert person.types("ask", "later", "12*34=").code == 0
    as_it_is = person.types(*LATER, "training=none", "dataset.limit.test=3")
    assert as_it_is.code == 0 and "none: the model of quickstart/" in as_it_is.out
    other = person.types("predict", "later", "generation.max_new_tokens=5")
    assert other.code == 0, other.err
    assert begun_from(all_runs(Path("runs"))[-1]) == begun_from(all_runs(Path("runs"))[1])


@pytest.mark.acceptance
@pytest.mark.usefixtures("both")
def test_it_is_planned_and_looked_at_before_anything_is_trained(person: Person) -> None:
    planned = person.types("plan", *LATER, "seed=5", "--no-measure", "--json")
    assert planned.code == 0, planned.err
    first = json.loads(planned.out)["first"]
    assert " plan +experiment=quickstart backend=torch seed=5 " in first and "training.max_steps=3" in first
    assert json.loads(person.types("plan", *LATER, "--no-measure", "--json").out)["first"] is None
    assert "no run of quickstart in runs has trained it" in person.types("traces", *LATER, "seed=5").err
    assert len(all_runs(Path("runs"))) == 2


@pytest.mark.acceptance
def test_an_adapter_is_merged_for_the_later_one(both: tuple[RunFolder, RunFolder], person: Person) -> None:
    words = ",".join(f"'{word}'" for word in (*SMALL, "model/adapter=lora", "training.max_steps=2"))
    done = person.types(*LATER, f"model.source.overrides=[{words}]")
    assert done.code == 0, done.err
    earlier, later = all_runs(Path("runs"))[2:]
    assert (earlier.model / "adapter_config.json").exists() and (later.model / "model.safetensors").exists()
    assert later.data_hashes()["start_model"] not in {folder_digest(run.model) for run in (*both, earlier)}


@pytest.mark.acceptance
def test_while_somebody_else_runs_the_earlier_one_the_later_one_waits(
    both: tuple[RunFolder, RunFolder], person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents: a sweep of which one member runs, and the others fail."""
    run, refused = experiment.run, iter([True, True, False])

    def busy(config: experiment.ExperimentConfig, *rest: object, **more: object) -> experiment.Result:
        if config.name == "quickstart" and next(refused, False):
            raise InUse("in use by another process")
        return run(config, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(experiment, "run", busy)
    monkeypatch.setattr(experiment, "POLL", 0.0)
    done = person.types(*LATER, "optimizer.learning_rate=3e-4")
    assert done.code == 0 and done.err.count("waiting: in use") == 1


@pytest.mark.acceptance  # three processes
@pytest.mark.parametrize("point", ["dispatched step:2", "begun prepare:2", "dispatched step:5"])
def test_killed_in_the_earlier_one_between_the_two_or_in_the_later_one(
    both: tuple[RunFolder, RunFolder], person: Person, point: str
) -> None:
    whole = {run.path.parent.name: Path(run.path).rename(person.folder / run.path.parent.name) for run in both}
    shutil.rmtree("runs")
    shutil.rmtree("data")
    assert person.starts(*LATER, env={faults.POINT: point}).code == -9
    done = person.types(*LATER)
    assert done.code == 0, done.err
    assert ("finished before" in done.err) == (point != "dispatched step:2"), "what was finished is not run again"
    for run in all_runs(Path("runs")):
        for name in ("metrics.jsonl", "model/model.safetensors", "predictions.jsonl", "metrics.json"):
            assert (run.path / name).read_bytes() == (whole[run.path.parent.name] / name).read_bytes(), name


@pytest.mark.acceptance  # worker processes
def test_members_of_a_sweep_side_by_side_share_one_earlier_run(workplace: Path, person: Person) -> None:
    shutil.copytree(workplace / "conf", person.folder / "conf")
    words = ("-m", *LATER, "optimizer.learning_rate=1e-4,2e-4", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    done = person.starts(*words)
    assert done.code == 0, done.err
    runs = all_runs(Path("runs"))
    assert [run.path.parent.name for run in runs] == ["quickstart", "later", "later"]
    assert {origin.path for run in runs[1:] if (origin := begun_from(run))} == {runs[0].path.resolve()}
