"""`distill` from end to end: a teacher that is an experiment runs first; the numbers are those of transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TOY
from tests.pipeline.conftest import Person, made_in
from tunix_rt.runs.folder import RunFolder, all_runs
from tunix_rt.traces.rollout import Rollout, read_rollouts, rollouts_file

SMALL = [word for word in TOY if not word.startswith(("hardware", "tracking"))]
FILE = f"""\
# @package _global_
defaults:
  - override /model: run
  - override /tokenizer: pretrained
  - override /objective: distill
name: student
model: {{source: {{experiment: quickstart, overrides: {json.dumps([*SMALL, "training.max_steps=3"])}}}}}
objective:
  teacher: {{kind: run, experiment: quickstart, overrides: {json.dumps([*SMALL, "training.max_steps=6"])}}}
  rollout: {{prompts_per_step: 4, samples_per_prompt: 2}}
"""
STUDENT = ("+experiment=student", "backend=torch", *TOY, "training.max_steps=2", "training.evaluate_every=null")
pytestmark = pytest.mark.acceptance  # five small trainings


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distill")
    (folder / "conf/experiment").mkdir(parents=True)
    (folder / "conf/experiment/student.yaml").write_text(FILE, "utf-8")
    made_in(folder, *STUDENT)
    return made_in(folder, *STUDENT, "objective.samples=teacher")


@pytest.fixture
def runs(workplace: Path, work: Path) -> dict[str, RunFolder]:
    """`teacher`, `start`, and the two students, `student` and `copier`."""
    shutil.copytree(workplace, work, dirs_exist_ok=True)
    return dict(zip(("teacher", "start", "student", "copier"), all_runs(Path("runs")), strict=True))


def first_of(run: RunFolder) -> tuple[list[Rollout], dict[str, Any]]:
    """The answers of the first step, and its line in the log."""
    return read_rollouts(rollouts_file(run.rollouts, 1)), json.loads(run.metrics_log.read_text().splitlines()[0])


def of_transformers(folder: Path, rollouts: list[Rollout]) -> tuple[Any, Any]:
    """log p of every sampled token [N], float64 with its graph, and the model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    model.get_input_embeddings().padding_idx = None  # a model that knows little samples <pad> too, and it is learned
    tokenizer, found = AutoTokenizer.from_pretrained(folder), []
    for rollout in rollouts:
        prompt = tokenizer(rollout.prompt, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([[*prompt, *rollout.ids]])
        logprobs = torch.log_softmax(model(ids).logits[0, len(prompt) - 1 : -1], -1)
        found.append(logprobs[torch.arange(len(rollout.ids)), ids[0, len(prompt) :]])
    return torch.cat(found), model


def gradient_norm(loss: Any, model: Any) -> float:
    loss.backward()
    return float(sum((weight.grad**2).sum() for weight in model.parameters()) ** 0.5)


def test_the_students_answers_are_judged_by_the_teacher(runs: dict[str, RunFolder]) -> None:
    """∇KL(student‖teacher), sampled (arXiv 2306.08543): the mean over tokens of (log π - log π_teacher)·∇log π."""
    rollouts, line = first_of(runs["student"])
    own, model = of_transformers(runs["start"].model, rollouts)
    expected, _ = of_transformers(runs["teacher"].model, rollouts)
    divergence = (own - expected).detach()
    assert abs(line["train/loss"] - float(divergence.mean())) < 1e-5
    assert abs(line["rollout/kl"] - line["train/loss"]) < 1e-5 < abs(float(divergence.mean()))
    assert abs(line["train/grad_norm"] / gradient_norm((divergence * own).mean(), model) - 1) < 1e-4
    sampled = [value for rollout in rollouts for value in rollout.logprobs]
    assert max(abs(a - b) for a, b in zip(sampled, own.tolist(), strict=True)) < 1e-4


def test_the_teachers_answers_are_learned(runs: dict[str, RunFolder]) -> None:
    """Sequence-level distillation (arXiv 1606.07947): their mean negative log-likelihood, under the student."""
    rollouts, line = first_of(runs["copier"])
    own, model = of_transformers(runs["start"].model, rollouts)
    expected, _ = of_transformers(runs["teacher"].model, rollouts)
    sampled = [value for rollout in rollouts for value in rollout.logprobs]
    assert max(abs(a - b) for a, b in zip(sampled, expected.tolist(), strict=True)) < 1e-4
    loss = -own.mean()
    assert abs(line["train/loss"] - loss.item()) < 1e-5
    assert abs(line["train/grad_norm"] / gradient_norm(loss, model) - 1) < 1e-4


def test_the_teacher_is_part_of_the_identity_of_training_alone(runs: dict[str, RunFolder]) -> None:
    student, copier = runs["student"], runs["copier"]
    trained = {name: runs[name].stages()["train"]["identity"] for name in ("teacher", "start")}
    assert student.data_hashes()["sources"] == {
        "model.source": trained["start"],
        "objective.teacher": trained["teacher"],
    }
    assert student.data_folder == copier.data_folder, "prepared once"


def test_a_folder_is_the_same_teacher_with_the_same_numbers(runs: dict[str, RunFolder], person: Person) -> None:
    teacher = f"++objective.teacher={{kind: folder, path: {runs['teacher'].model}}}"
    words = [*SMALL, "training.max_steps=3"]
    start = ["model.source.experiment=quickstart", f"model.source.overrides={json.dumps(words)}"]
    alone = ["name=alone", "model=run", "tokenizer=pretrained", "objective=distill", *start, teacher]
    asked = ["objective.rollout.prompts_per_step=4", "objective.rollout.samples_per_prompt=2"]
    done = person.types("backend=torch", *TOY, *STUDENT[-2:], *alone, *asked)
    assert done.code == 0, done.err
    last = all_runs(Path("runs"))[-1]
    assert last.metrics_log.read_bytes() == runs["student"].metrics_log.read_bytes()
    assert person.types("verify", last.name).code == 0 and person.types("reproduce", last.name).code == 0


def test_another_tokenizer_is_one_line(runs: dict[str, RunFolder], person: Person) -> None:
    other = [*SMALL, "tokenizer=bpe", "tokenizer.vocab_size=300", "training.max_steps=2"]
    done = person.types(*STUDENT, f"objective.teacher.overrides={json.dumps(other)}")
    said = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert done.code == 2 and len(said) == 1 and "has another tokenizer than the trained model's" in said[0]
