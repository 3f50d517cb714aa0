"""The default experiments at full size: what README.md and docs/first-run.md claim. `tests/acceptance/run`.

CI runs the quickstart on jax, and toy runs on both backends. Time has a ceiling of three times the goal only: machines
differ, and share their cores with others.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.conftest import Person

pytestmark = pytest.mark.timeout(3600)
BACKENDS = ("jax", "torch")
CEILING = 3


@pytest.fixture
def person(work: Path, capfd: pytest.CaptureFixture[str]) -> Person:
    return Person(work, capfd)


@pytest.fixture(autouse=True)
def _compiled_as_for_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    """These programs run long enough to be worth their compilation."""
    monkeypatch.delenv("XLA_FLAGS")


def ran(person: Person, *words: str, goal_seconds: float) -> dict[str, Any]:
    """Metrics of a full run that must end well within three times its goal."""
    done = person.starts(*words, timeout=CEILING * goal_seconds)
    assert done.code == 0, done.err
    print(done.out)
    (file,) = (person.folder / "runs").glob("*/*/metrics.json")
    metrics: dict[str, Any] = json.loads(file.read_text("utf-8"))
    baseline = file.with_name("baseline_metrics.json")
    return metrics | {"before": json.loads(baseline.read_text("utf-8")) if baseline.exists() else None}


def quickstart(backend: str, seed: int, person: Person) -> None:
    words = ("+experiment=quickstart", f"backend={backend}", f"seed={seed}", "hardware=cpu")
    metrics = ran(person, *words, goal_seconds=90)
    assert metrics["n"] == 500
    assert metrics["accuracy"]["k"] >= 495
    assert metrics["stop_rate"]["k"] == 500


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", pytest.param("torch", marks=pytest.mark.acceptance)])
def test_quickstart(backend: str, person: Person) -> None:
    quickstart(backend, 0, person)


@pytest.mark.acceptance
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_quickstart_with_other_seeds(backend: str, seed: int, person: Person) -> None:
    quickstart(backend, seed, person)


@pytest.mark.acceptance
@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_or_answer(backend: str, person: Person) -> None:
    words = ("+experiment=steps_or_answer", f"backend={backend}", "hardware=cpu")
    done = person.starts(*words, timeout=CEILING * 300)
    assert done.code == 0, done.err
    print(done.out)
    members = person.ranked_steps()
    assert list(members) == ["full", "reversed", "none", "wrong", "shuffled"]
    rates = {kind: member["metrics"]["accuracy"]["value"] for kind, member in members.items()}
    assert rates["full"] >= 0.99
    assert rates["none"] <= 0.25


@pytest.mark.acceptance
@pytest.mark.parametrize("backend", BACKENDS)
def test_smollm2_arithmetic(backend: str, person: Person) -> None:
    words = ("+experiment=smollm2_arithmetic", f"backend={backend}", "hardware=cpu")
    metrics = ran(person, *words, goal_seconds=360)
    assert metrics["n"] == 200
    assert metrics["before"]["accuracy"]["value"] <= 0.05
    assert metrics["accuracy"]["value"] >= 0.9
    assert metrics["stop_rate"]["value"] >= 0.99


@pytest.mark.acceptance
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "folder", "train", "test"),
    [
        ("smollm2_traces", "tunix_rt_v2", "traces.jsonl", "eval.jsonl"),
        ("gsm8k", "gsm8k", "train.jsonl", "test.jsonl"),
    ],
)
def test_real_traces(
    name: str, folder: str, train: str, test: str, backend: str, person: Person, corpora: Path
) -> None:
    """No accuracy is promised: the form is learned, and every prompt has its line."""
    data = corpora / folder
    words = [f"+experiment={name}", f"backend={backend}", "hardware=cpu"]
    words += [f"dataset.source.train.path={data / train}", f"dataset.source.test.path={data / test}"]
    metrics = ran(person, *words, goal_seconds=600)
    assert metrics["n"] == metrics["before"]["n"] == 100
    assert metrics["missing"] == metrics["error_rate"]["k"] == 0
    if name == "smollm2_traces":
        assert metrics["stop_rate"]["value"] > metrics["before"]["stop_rate"]["value"]


@pytest.mark.acceptance
def test_distilgpt2_at_full_size(person: Person) -> None:
    """82 M parameters from scratch train and generate, with the same first and last loss on both backends."""
    losses = {}
    for backend in BACKENDS:
        words = ("+experiment=quickstart", "model=distilgpt2_scratch", f"backend={backend}", f"name={backend}")
        small = "training.max_steps=4 training.global_batch_size=4 training.evaluate_every=null dataset.limit.test=8"
        rest = "schedule.warmup_steps=1 optimizer.learning_rate=1e-4 generation.max_new_tokens=8 tracking=none"
        done = person.starts(*words, *small.split(), *rest.split(), timeout=600)
        assert done.code == 0, done.err
        (log,) = (person.folder / "runs" / backend).glob("*/metrics.jsonl")
        losses[backend] = [json.loads(line)["train/loss"] for line in log.read_text("utf-8").splitlines()]
    assert losses["jax"] == pytest.approx(losses["torch"], rel=1e-4)
    assert losses["jax"][-1] < losses["jax"][0] - 1
