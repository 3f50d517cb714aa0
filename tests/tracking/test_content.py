"""What a run folder has to say, as plain data."""

from pathlib import Path

import pytest

from tests.tracking.conftest import TRACKING, MakeRun
from tunix_rt.errors import DataError
from tunix_rt.files import read_json, write_json, write_jsonl
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.sweep import SweepFolder
from tunix_rt.tracking.content import (
    answers,
    data_splits,
    description,
    facts,
    identity_tags,
    parameters,
    read_tracking,
    recorded_tags,
    records,
    results,
    run_name,
    sample,
    table,
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "quickstart" / "0123456789ab-2")
    folder.path.mkdir(parents=True)
    return folder


def test_what_the_product_records_is_read(recorded: RunFolder) -> None:
    """Prevents: a reader and a writer of run folders that drift apart, each with tests of its own making."""
    found = facts(recorded, ended=True)
    assert found.parameters["training.max_steps"] == "6" and found.parameters["tracking.stores"] == "{}"
    assert len(found.parameters) > 80
    assert found.tags["tunix_rt.backend"] == "torch" and found.tags["tunix_rt.experiment"] == "quickstart"
    assert {"command", "version.torch", "version.numpy"} <= found.tags.keys()
    assert found.note.startswith("**finished**\n\n**90.0 % of the answers are right**") and "27 of 30" in found.note
    splits = read_json(recorded.data)["splits"]
    assert {split.name.partition("/")[2]: split.sha256 for split in found.datasets} == {
        name: record["sha256"] for name, record in splits.items()
    }
    rows = answers(recorded)
    assert sum(not row["correct"] for row in rows) == 3
    assert all(len(row["steps"]) == row["step_checks"]["num_steps"] >= 3 for row in rows)
    points = {point.key: point.value for point in results(recorded)}
    assert points["score/accuracy"] == 0.9
    assert len(points) < 15 and not any(key.endswith(("_n", "_low", "_high")) for key in points)
    sent = {"config.yaml", "stages.json", "environment.json", "report.md", "data.json", "metrics.json"}
    assert sent | {"figures/loss.png"} < records(recorded).keys()


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


def test_the_scores_before_and_after_training_are_metrics_of_their_own(run: RunFolder) -> None:
    """Prevents: a chart of a single bar for each count and bound, among which nobody finds the accuracy."""
    rate = {"value": 0.5, "k": 1, "n": 2, "low": 0.1, "high": 0.9}
    write_json(run.metrics, {"accuracy": rate, "n": 2, "slices": {"digits": {"2": rate}}, "pass_at": {"4": rate}})
    write_json(run.baseline_metrics, {"accuracy": rate | {"value": 0.25}})
    found = results(run)
    assert {point.key: point.value for point in found} == {
        "score/accuracy": 0.5,
        "score/pass_at_4": 0.5,
        "score_before_training/accuracy": 0.25,
    }
    assert found[0].time == run.metrics.stat().st_mtime_ns // 1_000_000, "sent again, it is the same point"
    assert results(RunFolder(run.path / "empty")) == []


def test_a_run_is_named_by_experiment_and_identity(run: RunFolder) -> None:
    assert run_name(run) == "quickstart-01234567-2"
    tags = identity_tags(run, "f00")
    assert tags["tunix_rt.identity"] == "0123456789ab-2"
    assert tags["tunix_rt.key"] == "f00"
    assert tags["tunix_rt.run_folder"] == str(run.path)


def test_tags_without_a_repository(run: RunFolder) -> None:
    write_json(run.environment, {"git": None, "packages": {"jax": "1.0"}})
    tags = recorded_tags(run, {"name": "quickstart", "backend": {"name": "jax"}})
    assert tags == {"tunix_rt.experiment": "quickstart", "tunix_rt.backend": "jax", "version.jax": "1.0"}


def test_description_tells_the_reason_first(run: RunFolder) -> None:
    run.begin()
    run.end("failed", "loss is not finite", 4)
    run.report.write_text("# Report\n\n![loss](figures/loss.png)\n\ntext\n")
    assert description(run) == "**failed**: loss is not finite\n\ntext"


def test_a_torn_prediction_is_left_out_and_the_rest_stays(run: RunFolder) -> None:
    """A run killed while it predicts leaves half a line; its sync process must still mark it killed."""
    write_jsonl(run.predictions, [{"id": "a", "sample": 0, "answer": "1"}, {"id": "a", "sample": 1, "answer": "2"}])
    check = {"num_steps": 2, "num_wrong": 1, "first_wrong": 1, "verdicts": [True, False]}
    write_jsonl(run.items, [{"id": "a", "sample": 1, "correct": True, "steps": check, "slices": {"digits": "2"}}])
    with run.predictions.open("a") as file:
        file.write('{"id": "b", "sam')
    assert answers(run) == [
        {"id": "a", "sample": 0, "answer": "1"},
        {"id": "a", "sample": 1, "answer": "2", "correct": True, "step_checks": check, "slices": {"digits": "2"}},
    ]


def test_table_has_a_row_per_prediction_wrong_ones_first() -> None:
    """A tracker shows a table by pages that it does not sort; the completion is beside the prompt."""
    rows = [
        {"id": "b", "sample": 0, "answer": "2.0", "extracted": "2", "steps": [], "logprobs": [], "correct": True},
        {
            "id": "a",
            "sample": 0,
            "answer": "1",
            "steps": ["x", "y"],
            "logprobs": [0.1],
            "token_ends": [1],
            "correct": False,
        },
    ]
    made = table(rows, 1, 7)
    columns = made.columns
    assert columns[:5] == ["prompt", "completion", "answer", "reference", "correct"]
    assert not {"logprobs", "token_ends", "extracted"} & {*columns}
    assert made.rows[0][columns.index("steps")] == "x\ny"
    assert [row[columns.index("id")] for row in made.rows] == ["a", "b"]
    assert [row[columns.index("answer")] for row in made.rows] == ["1", "2"]
    assert (made.name, made.time, made.examples) == ("predictions.json", 7, sample(rows, 1))


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


def test_a_masked_uri_comes_from_the_environment(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file has the password: a sync process gets it from the process that starts it, a person gives it."""
    monkeypatch.delenv("TUNIX_RT_TRACKING_URI", raising=False)
    uri = "http://me:hunter2@host:5000"
    plain, _ = make_run("aaaaaaaaaaaa", uri="http://host:5000")
    masked, _ = make_run("bbbbbbbbbbbb", uri="http://me:***@host:5000")
    with pytest.raises(DataError, match=r"the password is masked; give the whole URI in TUNIX_RT_TRACKING_URI"):
        read_tracking(masked)
    monkeypatch.setenv("TUNIX_RT_TRACKING_URI", uri)
    assert read_tracking(masked).uri == uri
    assert read_tracking(plain).uri == "http://host:5000", "only where something is masked"


def test_a_masked_uri_of_a_sweep_is_an_error_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents: a sweep sent by hand with the password `***`, which the server refuses."""
    monkeypatch.delenv("TUNIX_RT_TRACKING_URI", raising=False)
    sweep = SweepFolder(tmp_path)
    section = {**TRACKING, "uri": "http://me:***@host:5000", "wait_seconds": 5.0}
    sweep.begin({"tracking": section})
    with pytest.raises(DataError, match=r"sweep\.json: tracking\.uri: the password is masked"):
        read_tracking(sweep)
    monkeypatch.setenv("TUNIX_RT_TRACKING_URI", "http://me:hunter2@host:5000")
    assert read_tracking(sweep).uri == "http://me:hunter2@host:5000"
