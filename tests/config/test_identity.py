"""Identity: what changes it, what never does, and that every field of the config says which it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

import pytest

from tests.conftest import config_of
from tunix_rt.config.identity import STAGES, VERDICT, declared, first_stage, identities
from tunix_rt.config.results import EvaluationConfig
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.config.section import hints_of, is_execution, members

OWN_FILE = ("dataset=jsonl", "dataset.name=mine", "dataset.source.train.path=mine.jsonl")
PRETRAINED = ("model=from_path", "model.source.path=here", "tokenizer=pretrained")
BY_ACCURACY = ("training.select=best_accuracy",)


def changed_by(override: str, *others: str) -> list[str]:
    """The stages whose identity an override changes."""
    before, after = identities(config_of(others), {}), identities(config_of([*others, override]), {})
    return [stage for stage in STAGES if before[stage] != after[stage]]


def from_stage(stage: str) -> list[str]:
    """It and the later ones."""
    return list(STAGES)[list(STAGES).index(stage) :]


@pytest.mark.parametrize(
    ("override", "first_changed"),
    [
        ("seed=1", "prepare"),
        ("training.seed=1", "prepare"),
        ("dataset.seed=1", "prepare"),
        ("dataset.limit.train=10", "prepare"),
        ("model.source.hidden_size=128", "prepare"),
        ("format.step_end='|'", "prepare"),
        ("backend=torch", "train"),
        ("model/adapter=lora", "train"),
        ("optimizer.learning_rate=1e-3", "train"),
        ("training.max_steps=100", "train"),
        ("run.stop_step=2", "train"),
        ("generation.max_new_tokens=9", "predict"),
        ("generation.seed=1", "predict"),
        ("generation.interventions={kinds: [corrupted], num_prompts: 9, filler: x}", "predict"),
        ("evaluation=number", "evaluate"),
        ("evaluation.scorers.0.kind=text", "evaluate"),
    ],
)
def test_what_changes_a_result_changes_its_stage_and_the_later_ones_only(override: str, first_changed: str) -> None:
    """Prevents: `run.stop_step=2`, then the same without it, answered with the model of two steps."""
    assert changed_by(override) == from_stage(first_changed)


@pytest.mark.parametrize(
    "override",
    [
        "hardware.threads=1",
        "checkpoint.keep=7",
        "tracking=none",
        "run.root=elsewhere",
        "debug=true",
        "sweep.metric=x",
        "name=other",
        "dataset.name=other",
        "generation.batch_size=3",
        "generation.max_error_rate=0.9",
    ],
)
def test_where_and_how_it_runs_and_what_it_is_called_never_enter(override: str) -> None:
    """Prevents: training again for another batch size of generation, or for a label."""
    assert changed_by(override) == []


@pytest.mark.parametrize(
    ("override", "others"),
    [
        ("dataset.source.train.path=moved/mine.jsonl", OWN_FILE),
        ("dataset.source.origin=https://example.org", OWN_FILE),
        ("dataset.source.version=2", OWN_FILE),
        ("model.source.path=moved", PRETRAINED),
        ("model.adapter.path=moved", (*PRETRAINED, "model/adapter=lora", "model.adapter.path=here")),
    ],
)
def test_a_file_that_was_moved_or_is_called_otherwise_is_the_same_one(override: str, others: tuple[str, ...]) -> None:
    """Its content enters, below."""
    assert changed_by(override, *others) == []


def test_a_sweep_over_seeds_prepares_weights_that_exist_once() -> None:
    """Only weights that are drawn need a folder for each seed."""
    assert changed_by("seed=1", *PRETRAINED) == from_stage("train")
    assert changed_by("seed=1", *PRETRAINED, "training.seed=0") == from_stage("predict")
    assert changed_by("seed=1", "training.seed=0", "generation.seed=0") == []


def test_rows_at_once_never_enter_and_those_of_an_update_do_but_where_rollouts_decide_them() -> None:
    """Recorded runs named them otherwise, and keep their identity."""
    override, rollouts = "training.global_batch_size=40", (*PRETRAINED, "objective=dr_grpo")
    assert changed_by(override) == from_stage("train")
    assert changed_by(override, *rollouts) == []
    for words in ("hardware.local_batch_size=3", "hardware.devices=4", "hardware=fsdp"):
        assert changed_by(words) == []
    found = declared(config_of([override]), "train")["training"]
    assert (found["per_device_batch_size"], found["gradient_accumulation_steps"]) == (40, 1)


@pytest.mark.parametrize("rule", ["evaluation=number", "evaluation.extract=[last_number]"])
@pytest.mark.slow
def test_the_rules_for_answers_belong_to_training_where_accuracy_decides(rule: str) -> None:
    stops = ("training.early_stopping={metric: accuracy, patience: 2, min_delta: 0}",)
    for words in (BY_ACCURACY, stops):
        assert changed_by(rule, *words) == from_stage("train")
        for counted in ("evaluation.steps=none", "evaluation.scorers=[{kind: exact},{kind: text}]"):
            assert changed_by(counted, *words) == from_stage("evaluate"), "a further scorer decides nothing"
    assert changed_by(rule, "training.select=best_loss") == from_stage("evaluate")


def test_the_verdict_is_all_of_evaluation_but_what_only_counts() -> None:
    deciding = {path.removesuffix(".0") for path in VERDICT}
    assert {f"evaluation.{name}" for name in hints_of(EvaluationConfig)} - deciding == {
        "evaluation.steps",
        "evaluation.slices",
        "evaluation.pass_at",
    }


def test_what_came_later_and_is_null_leaves_recorded_identities_as_they_are() -> None:
    assert "interventions" not in declared(config_of(), "predict")["generation"]


def test_the_content_of_named_files_enters() -> None:
    assert identities(config_of(), {"train": "a"})["prepare"] != identities(config_of(), {"train": "b"})["prepare"]


def test_the_content_of_an_adapter_that_is_trained_on_enters_where_it_is_used() -> None:
    first, second = (identities(config_of(), {"model.adapter": content}) for content in "ab")
    assert (first["prepare"] == second["prepare"], first["train"] == second["train"]) == (True, False)


def fields_below(hint: Any, path: str) -> Iterator[tuple[str, bool]]:
    """(dotted path, whether marked `Execution`) of every value, whatever kind its sections are of."""
    sections = [member for member in members(hint) if is_dataclass(member)]
    if not sections or is_execution(hint):
        yield path, is_execution(hint)
    for section in sections:
        for name, field in hints_of(section).items():
            yield from fields_below(field, f"{path}.{name}" if path else name)


def test_every_field_is_taken_by_a_stage_or_marked_as_one_that_changes_no_result() -> None:
    """Prevents: a new field of `run` or `hardware` that changes results and is forgotten."""
    taken = tuple(f"{path}." for paths in STAGES.values() for path in paths)
    found = dict(fields_below(ExperimentConfig, ""))
    assert len(found) > 100
    forgotten = {path for path, execution in found.items() if not execution and not f"{path}.".startswith(taken)}
    assert forgotten == {"seed"}, "it enters through the seeds that are null"


@pytest.mark.parametrize(
    ("key", "stage"),
    [
        ("seed", "prepare"),
        ("dataset", "prepare"),
        ("dataset.source.steps", "prepare"),
        ("dataset.source.train.path", None),
        ("format.variables.thinking", "prepare"),
        ("run", "train"),
        ("run.stop_step", "train"),
        ("run.root", None),
        ("hardware", None),
        ("generation", "predict"),
        ("generation.batch_size", None),
        ("evaluation.pass_at", "evaluate"),
        ("name", None),
    ],
)
def test_the_first_stage_that_a_value_changes(key: str, stage: str | None) -> None:
    assert first_stage(key) == stage
