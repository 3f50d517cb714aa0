"""The habits of a DVC user, in a real repository: repro, exp run, a queue, push and pull, an interruption."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.conftest import ROOT, TOY
from tunix_rt import faults
from tunix_rt.__main__ import guarded
from tunix_rt.config.identity import identities
from tunix_rt.config.load import check, compose
from tunix_rt.pipeline import run_stage
from tunix_rt.runs.folder import RunFolder, all_runs
from tunix_rt.runs.origin import workspace

STAGES = ("prepare", "train", "predict", "evaluate", "report")
PARTS = ("conf", "pipelines", "tunix_rt", ".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "dvc.yaml")
TOYS = [word for override in ("backend=torch", *TOY) for word in ("-S", override)]
TRACKED = [*TOYS, "-S", "tracking=mlflow"]
UNTRACKED = {
    ".lock",
    ".tracking.lock",
    "tracking.json",
    "tracking.log",
    "tracking_process.json",
    "system.jsonl",
    "fingerprint.json",
    "samples.jsonl",
}


@dataclass(frozen=True)
class Repository:
    """A clone with DVC in it."""

    folder: Path

    def types(self, *words: str, code: int = 0, env: Mapping[str, str] | None = None) -> str:
        """Run a command, with more variables; returns what it printed, both streams."""
        variables = _environment() | dict(env or {})
        done = subprocess.run(words, cwd=self.folder, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def commits(self) -> None:
        self.types("git", "add", "-A")
        self.types("git", "commit", "-qm", "as it is")

    def reads(self, name: str) -> str:
        return (self.folder / name).read_text("utf-8")


def _environment() -> dict[str, str]:
    """DVC starts itself and `python` by name."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "true"}


@pytest.fixture
def repository(work: Path) -> Repository:
    """This checkout's files, committed anew: what a bare clone is."""
    for part in (*PARTS, "params.yaml"):
        source, target = ROOT / part, work / "clone" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    made = Repository(work / "clone")
    made.types("git", "init", "-q")
    for key in ("user.name", "user.email"):  # DVC's experiments are commits, and a machine may know nobody
        made.types("git", "config", key, "n@localhost")
    made.types("dvc", "config", "--local", "core.site_cache_dir", str(work / "site"))
    made.commits()
    return made


def done_by(text: str) -> list[str]:
    """The stages that a command ran."""
    return [name for name in STAGES if f"Running stage '{name}'" in text]


@pytest.mark.acceptance  # a minute
def test_only_what_a_change_concerns_is_run_again(repository: Repository) -> None:
    assert done_by(repository.types("dvc", "exp", "run", *TOYS)) == list(STAGES)
    left = {file.relative_to(repository.folder) for file in (repository.folder / "runs").rglob("*") if file.is_file()}
    repository.commits()
    known = {Path(line) for line in repository.types("dvc", "ls", ".", "-R", "--dvc-only").splitlines()}
    assert {file.name for file in left - known if "checkpoints" not in file.parts} <= UNTRACKED
    assert done_by(repository.types("dvc", "repro")) == []

    def edit(file: str) -> None:
        path = repository.folder / file
        path.write_text(f"{path.read_text('utf-8')}\n# edited\n", "utf-8")

    edit("tunix_rt/evaluation/answers.py")
    assert done_by(repository.types("dvc", "repro")) == ["evaluate", "report"]
    edit("tunix_rt/backends/jax/step.py")
    assert done_by(repository.types("dvc", "repro")) == []
    edit("tunix_rt/inference/loop.py")
    assert done_by(repository.types("dvc", "repro")) == ["predict", "report"], "the same answers are not judged again"
    slower = repository.types("dvc", "exp", "run", *TOYS, "-S", "optimizer.learning_rate=1e-4")
    assert done_by(slower) == list(STAGES[1:])


@pytest.mark.acceptance  # a minute and a half; DVC's own queue
def test_experiments_queue_and_travel_and_are_one_mlflow_run_each(repository: Repository, work: Path) -> None:
    repository.types("dvc", "exp", "run", *TRACKED, "-S", "generation.baseline=true")
    assert '"state": "finished"' in repository.reads("runs/dvc/status.json")
    repository.commits()
    repository.types("dvc", "exp", "run", "--queue", *TRACKED, "-S", "generation.max_new_tokens=4,6")
    repository.types("dvc", "queue", "start", "-j", "1")
    deadline = time.monotonic() + 240
    while (status := repository.types("dvc", "queue", "status")).count("Success") < 2:
        assert "Failed" not in status and time.monotonic() < deadline, status
        time.sleep(1)
    with sqlite3.connect(repository.folder / "mlflow.db") as store:
        query = "select status, value from runs join tags using (run_uuid) where key = 'tunix_rt.identity'"
        found = store.execute(query).fetchall()
    store.close()
    assert len({identity for _, identity in found}) == 3 == len(found)
    assert {status for status, _ in found} == {"FINISHED"}
    assert "runs/dvc/evaluate/scores.json" in repository.types("dvc", "metrics", "diff", "HEAD", "--all")
    numbers = json.loads(repository.types("dvc", "metrics", "show", "--json"))[""]["data"].values()
    assert [len(found["data"]) < 15 and "accuracy" in found["data"] for found in numbers] == [True]
    assert "index.html" in repository.types("dvc", "plots", "show")
    pictures = list((repository.folder / "dvc_plots" / "static").glob("*.png"))
    assert {picture.name.rpartition("_")[2] for picture in pictures} >= {"loss.png", "accuracy.png", "lengths.png"}
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    data = repository.types(sys.executable, "-m", "tunix_rt", "data", "runs/dvc", "--json")
    assert json.loads(data)["mismatches"] == [] and len(json.loads(data)["versions"]) == 3

    repository.types("dvc", "remote", "add", "--default", "shelf", str(work / "shelf"))
    repository.types("dvc", "push")
    repository.commits()
    repository.types("git", "clone", "-q", ".", str(work / "second"))
    second = Repository(work / "second")
    second.types("dvc", "pull")
    for name in (
        "predict/baseline_predictions.jsonl",
        "evaluate/metrics.json",
        "train/model/model.safetensors",
        "report.md",
    ):
        assert (second.folder / "runs/dvc" / name).read_bytes() == (repository.folder / "runs/dvc" / name).read_bytes()
    assert done_by(second.types("dvc", "repro")) == []
    assert "of the answers are right" in second.types(sys.executable, "-m", "tunix_rt", "show", "runs/dvc")


@pytest.mark.slow
def test_an_interrupted_repro_goes_on_where_it_stopped(repository: Repository) -> None:
    long = (
        "+experiment=quickstart",
        "training.max_steps=40",
        "training.evaluate_every=null",
        "schedule.warmup_steps=5",
        "checkpoint.save_every=10",
    )
    words = [*TOYS, *(word for override in long for word in ("-S", override))]
    repository.types("dvc", "exp", "run", *words, code=255, env={faults.POINT: "dispatched step:35"})
    again = repository.types("dvc", "repro")
    assert "train: going on from step" in again and done_by(again) == list(STAGES[1:])
    steps = [json.loads(line)["step"] for line in repository.reads("runs/dvc/train/metrics.jsonl").splitlines()]
    assert steps == list(range(1, 41))


@pytest.mark.slow
def test_the_scripts_do_what_dvc_has_them_do(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: the stages in their order, and out of it."""
    mapping = compose(["+experiment=quickstart", "backend=torch", *TOY])
    (repository.folder / "params.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(mapping)))
    monkeypatch.chdir(repository.folder)

    def does(stage: str) -> int:
        return guarded(lambda: run_stage(stage), debug=False)

    assert does("train") == 2
    assert [does(stage) for stage in STAGES] == [0] * 5
    run = RunFolder(repository.folder / "runs/dvc")
    assert run.status()["state"] == "finished"
    assert [(name, record["state"]) for name, record in run.stages().items()] == [(name, "done") for name in STAGES]
    chain = identities(check(mapping), {})
    assert run.identity == chain["evaluate"] == run.stages()["report"]["identity"]
    assert run.data_hashes()["prepared"] and json.loads(run.environment.read_text())["backend"]["torch"]
    assert [record.name for record in all_runs(repository.folder / "runs")] == ["runs/dvc"]
    assert all("stage_seconds" in record for record in run.stages().values())

    def predicted() -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in (run.path / "predict").iterdir()}

    before = predicted()
    assert does("predict") == 0 and predicted() == before, "the same bytes, or DVC evaluates again"


LATER = """\
# @package _global_
defaults:
  - override /model: run
  - override /tokenizer: pretrained
name: later
model: {source: {experiment: quickstart, overrides: %s}}
"""


@pytest.mark.timeout(1800)
@pytest.mark.acceptance  # two minutes on a free machine
def test_an_experiment_that_begins_from_another_one_is_one_graph(repository: Repository) -> None:
    small = [word for word in TOY if not word.startswith(("hardware", "tracking"))]
    (repository.folder / "conf/experiment/later.yaml").write_text(LATER % json.dumps(small), "utf-8")
    repository.commits()
    words = ["-S", "+experiment=later", *TOYS]
    done = repository.types("dvc", "exp", "run", *words)
    assert "Running stage 'first@quickstart'" in done and done_by(done) == list(STAGES)
    assert "runs/dvc/first" in repository.types("dvc", "dag", "--outs")
    (first,) = all_runs(repository.folder / "runs/")[:1]
    assert first.path.parent.name == "quickstart" and first.status()["state"] == "finished"
    assert f"[`{first.name}`](../{first.name}/report.md)" in repository.reads("runs/dvc/report.md")
    run = RunFolder(repository.folder / "runs/dvc")
    assert run.data_hashes()["sources"] == {"model.source": first.stages()["train"]["identity"]}
    again = repository.types("dvc", "repro")
    assert "finished before; nothing is run again" in again and done_by(again) == []

    weights = repository.folder / "runs/dvc/first/model/model.safetensors"
    before = weights.read_bytes()
    other = [*small, "optimizer.learning_rate=1e-4"]
    (repository.folder / "conf/experiment/later.yaml").write_text(LATER % json.dumps(other), "utf-8")
    assert done_by(repository.types("dvc", "exp", "run", *words)) == list(STAGES)
    assert weights.read_bytes() != before
    repository.commits()
    repository.types("dvc", "exp", "run", "--temp", *words, "-S", "optimizer.learning_rate=1e-4")
    assert len(list((repository.folder / "runs/quickstart").glob("*/status.json"))) == 2, "it was trained once"
    assert done_by(repository.types("dvc", "exp", "run", *TOYS)) == list(STAGES), "the default has no such stage"


def test_a_copy_knows_the_checkout_it_was_made_from(tmp_path: Path) -> None:
    assert workspace(tmp_path / ".dvc/tmp/exps/tmpabc") == tmp_path
    assert workspace(tmp_path / ".dvc/tmp/exps/standalone/tmpabc/sub") == tmp_path
    assert workspace(tmp_path / "exps/tmpabc") == tmp_path / "exps/tmpabc"


@pytest.mark.slow
def test_a_mistake_is_one_line_and_nothing_is_recorded_as_done(repository: Repository) -> None:
    said = repository.types("dvc", "exp", "run", *TOYS, "-S", "training.max_steps=true", code=255)
    assert "error: training.max_steps: got true, expected" in said and "Traceback" not in said
    assert not (repository.folder / "runs/dvc/prepare").exists()


@pytest.mark.acceptance  # a minute
def test_pairs_of_the_answers_are_one_more_stage(repository: Repository) -> None:
    """Additions of one digit, sampled at a high temperature: some answers to a prompt are right, others wrong."""
    words = [
        *("run.pairs=[{to: data/raw/own, by: length}]", "dataset.source.operation=add", "dataset.source.digits=[1,1]"),
        *("dataset.limit.train=60", "training.max_steps=120", "training.evaluate_every=null", "generation=sample"),
        *("generation.split=train", "generation.num_return_sequences=6", "generation.max_new_tokens=24"),
        *("generation.temperature=1.5", "generation.top_p=null"),
    ]
    done = repository.types("dvc", "exp", "run", *TOYS, *(word for override in words for word in ("-S", override)))
    assert "Running stage 'pairs@0'" in done
    folder = repository.folder / "data" / "raw" / "own"
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text("utf-8").splitlines()]
    assert pairs and all(pair["meta"]["verdicts"] == [1.0, 0.0] for pair in pairs)
    assert 'ranked_by: ["verdict", "length"]' in (folder / "pairs.md").read_text("utf-8")
    again = repository.types("dvc", "repro")
    assert "Stage 'pairs@0' didn't change, skipping" in again
