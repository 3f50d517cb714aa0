"""What a run folder has to say, as plain data."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tunix_rt.config.execution import TrackingConfig
from tunix_rt.errors import DataError
from tunix_rt.files import write_json, write_jsonl
from tunix_rt.runs.folder import RunFolder
from tunix_rt.tracking.content import (
    answers,
    birth_tags,
    data_splits,
    description,
    final_points,
    later_tags,
    parameters,
    read_tracking,
    sample,
    table,
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "quickstart" / "0123456789ab-2")
    folder.path.mkdir(parents=True)
    return folder


def test_parameters_are_flat_and_without_passwords() -> None:
    config = {"a": {"b": {"c": 3e-4}, "list": [1, 2], "empty": {}}, "none": None, "yes": True, "text": "x"}
    assert parameters(config | {"uri": "http://me:secret@host"}) == {
        "a.b.c": "0.0003",
        "a.list": "[1, 2]",
        "a.empty": "{}",
        "none": "null",
        "yes": "true",
        "text": "x",
        "uri": "http://me:***@host",
    }


def test_numbers_of_the_results_become_metrics_that_mlflow_takes(run: RunFolder) -> None:
    from mlflow.utils.validation import _validate_metric_name

    rate = {"value": 0.5, "k": 1, "n": 2, "low": 0.1, "high": 0.9}
    slices = {"operation=a/b": {"accuracy": rate}, "..": {"n": 3}, "": {"n": 4}, "x" * 300: {"n": 5}}
    write_json(run.metrics, {"accuracy": rate, "schema_version": 1, "ok": True, "nothing": None, "slices": slices})
    points = {point.key: point for point in final_points(run.metrics, "")}
    assert {key: point.value for key, point in points.items() if "slices" not in key} == {
        "accuracy": 0.5,
        "accuracy_low": 0.1,
        "accuracy_high": 0.9,
        "accuracy_n": 2.0,
    }
    assert "slices/operation_a_b/accuracy" in points
    assert {point.step for point in points.values()} == {0}
    assert len(points) == 4 + 1 + 1 + 1, '".." and "" become the same name'
    for key in points:
        _validate_metric_name(key)
    assert final_points(run.baseline_metrics, "baseline/") == []


def test_a_run_is_named_by_experiment_and_identity(run: RunFolder) -> None:
    tags = birth_tags(run, "f00")
    assert tags["mlflow.runName"] == "quickstart-01234567-2"
    assert tags["tunix_rt.identity"] == "0123456789ab-2"
    assert tags["tunix_rt.key"] == "f00"
    assert tags["tunix_rt.run_folder"] == str(run.path)


def test_tags_without_a_repository(run: RunFolder) -> None:
    write_json(run.environment, {"git": None, "packages": {"jax": "1.0"}})
    tags = later_tags(run, {"name": "quickstart", "backend": {"name": "jax"}})
    assert tags == {"tunix_rt.experiment": "quickstart", "tunix_rt.backend": "jax", "version.jax": "1.0"}


def test_description_tells_the_reason_first(run: RunFolder) -> None:
    run.begin()
    run.end("failed", "loss is not finite", 4)
    run.report.write_text("# Report\n\n![loss](figures/loss.png)\n\ntext\n")
    assert description(run) == "**failed**: loss is not finite\n\n# Report\n\ntext"


def test_a_torn_prediction_is_left_out_and_the_rest_stays(run: RunFolder) -> None:
    """A run killed while it predicts leaves half a line; its follower must still mark it KILLED."""
    write_jsonl(run.predictions, [{"id": "a", "sample": 0, "answer": "1"}, {"id": "a", "sample": 1, "answer": "2"}])
    check = {"num_steps": 2, "num_wrong": 1, "first_wrong": 1, "verdicts": [True, False]}
    write_jsonl(run.items, [{"id": "a", "sample": 1, "correct": True, "steps": check, "slices": {"digits": "2"}}])
    with run.predictions.open("a") as file:
        file.write('{"id": "b", "sam')
    assert answers(run) == [
        {"id": "a", "sample": 0, "answer": "1"},
        {"id": "a", "sample": 1, "answer": "2", "correct": True, "step_checks": check, "slices": {"digits": "2"}},
    ]


def test_table_has_a_row_per_prediction_and_verdicts_beside_the_answer() -> None:
    rows = [
        {"id": "a", "sample": 0, "answer": "1", "steps": ["x", "y"], "logprobs": [0.1]},
        {"id": "b", "sample": 0, "answer": "2", "steps": [], "logprobs": [], "correct": True},
    ]
    made = table(rows)
    columns = made["columns"]
    assert columns[:4] == ["prompt", "reference", "answer", "correct"]
    assert "logprobs" not in columns
    assert made["data"][0][columns.index("steps")] == "x\ny"
    assert made["data"][0][columns.index("correct")] is None
    assert [row[columns.index("id")] for row in made["data"]] == ["a", "b"]


def test_sample_is_the_same_every_time_and_follows_no_pattern_of_the_file() -> None:
    """At equal distances, every tenth row being wrong gave a sample without any wrong one."""
    rows = [{"id": f"{number:012x}", "sample": 0, "correct": number % 10 != 3} for number in range(500)]
    chosen = sample(rows, 50)
    assert len(chosen) == 50
    assert chosen == sample(rows, 50)
    assert chosen == [row for row in rows if row in chosen], "in the order of the file"
    assert 0 < sum(not row["correct"] for row in chosen) < 15
    assert sample(rows, 1000) == rows
    assert sample(rows, 0) == []


def test_splits_come_from_the_manifest(run: RunFolder) -> None:
    splits = {"train": {"sha256": "ab", "count": 3}, "test": {"sha256": "cd", "count": 1}, "validation": {}}
    write_json(run.data, {"name": "mine", "folder": "data/mine/1", "splits": splits})
    found = {split.name: (split.context, split.sha256, split.source) for split in data_splits(run)}
    assert found == {"mine/train": ("training", "ab", "data/mine/1"), "mine/test": ("testing", "cd", "data/mine/1")}


@pytest.mark.parametrize("text", ["a: 1\n", "tracking: {kind: mlflow}\n", "- 1\n"])
def test_a_config_of_another_kind_is_a_clear_error(run: RunFolder, text: str) -> None:
    run.config.write_text(text)
    with pytest.raises(DataError, match=r"config\.yaml"):
        read_tracking(run)


def test_a_masked_uri_comes_from_the_environment(
    make_run: Callable[..., tuple[RunFolder, TrackingConfig]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file has the password: a follower gets it from the process that starts it, a person gives it."""
    uri = "http://me:hunter2@host:5000"
    plain, _ = make_run("aaaaaaaaaaaa", uri="http://host:5000")
    masked, _ = make_run("bbbbbbbbbbbb", uri="http://me:***@host:5000")
    with pytest.raises(DataError, match=r"the password is masked; give the whole URI in TUNIX_RT_TRACKING_URI"):
        read_tracking(masked)
    monkeypatch.setenv("TUNIX_RT_TRACKING_URI", uri)
    assert read_tracking(masked).uri == uri
    assert read_tracking(plain).uri == "http://host:5000", "only where something is masked"
