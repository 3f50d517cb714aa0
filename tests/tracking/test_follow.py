"""The follower against a real MLflow, a real training process and real deaths."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tunix_rt.config.execution import TrackingConfig
from tunix_rt.errors import DataError
from tunix_rt.files import read_json, write_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.tracking import follow as station
from tunix_rt.tracking.follow import Follower, FollowReport, follow, main, send_command, spawn

MakeRun = Callable[..., tuple[RunFolder, TrackingConfig]]
Train = Callable[..., subprocess.Popen[bytes]]

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
"""MLflow's own code, with the newest SQLAlchemy."""


def history(client: MlflowClient, run_id: str, key: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in client.get_metric_history(run_id, key))


def recorded(run: RunFolder, key: str) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in run.metrics_log.read_text().splitlines()]
    return sorted((line["step"], line[key]) for line in lines if key in line)


def assert_all_there(client: MlflowClient, run: RunFolder, report: FollowReport, predictions: int = 30) -> None:
    """The store compared with the files here too, so that a report that says 'complete' is not just believed."""
    assert report.complete, report.message
    assert report.sent == report.expected
    assert report.run_id is not None
    for key in ("train/loss", "train/learning_rate", "eval/loss"):
        assert len(recorded(run, key)) >= 2, "the test would prove nothing"
        assert history(client, report.run_id, key) == recorded(run, key)
    assert report.expected["predictions"] == predictions
    experiment = client.get_run(report.run_id).info.experiment_id
    assert len(client.search_runs([experiment])) == 1
    assert len(client.search_traces(locations=[experiment], max_results=100)) == report.expected["traces"]


def test_finished_run_is_all_in_the_store(make_run: MakeRun, store: str, train: Train) -> None:
    run, tracking = make_run(log_model=True)
    train(run).wait()
    report = follow(run.path, tracking, watch=True)
    client = MlflowClient(store)
    assert_all_there(client, run, report)
    assert report.expected["traces"] == 10
    model = client.download_artifacts(str(report.run_id), "model")
    assert read_json(Path(model) / "config.json") == {"model_type": "llama"}
    stored = client.get_run(report.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "quickstart-01234567"
    assert stored.data.params["optimizer.learning_rate"] == "0.003"
    assert stored.data.params["optimizer.betas"] == "[0.9, 0.99]"
    assert stored.data.params["dataset.note"].endswith("…")
    assert stored.data.metrics["accuracy"] == 0.9
    assert stored.data.metrics["accuracy_low"] == 0.85
    assert stored.data.metrics["slices/2x2/accuracy"] == 0.9
    assert stored.data.tags["mlflow.source.git.commit"].startswith("0123456789")
    assert "27 of 30 right" in stored.data.tags["mlflow.note.content"]
    assert "figures/loss.png" not in stored.data.tags["mlflow.note.content"]
    contexts = {item.dataset.name: item.tags[0].value for item in stored.inputs.dataset_inputs}
    assert contexts["arithmetic/train"] == "training"
    assert contexts["arithmetic/test"] == "testing"


def test_table_and_traces_are_readable_as_mlflow_reads_them(
    make_run: MakeRun, store: str, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)  # `load_table` asks the global store besides the client's
    run, tracking = make_run()
    train(run).wait()
    report = follow(run.path, tracking, watch=False)
    client = MlflowClient(store)
    experiment = client.get_run(report.run_id).info.experiment_id
    table = client.load_table(experiment, "predictions.json", run_ids=[report.run_id])
    assert len(table) == 30
    assert list(table["correct"]).count(False) == 3
    assert table["steps"][0].splitlines()[0] == "10*0=0"
    traces = client.search_traces(locations=[experiment], run_id=report.run_id, max_results=100)
    for trace in traces:
        root, *steps = sorted(trace.data.spans, key=lambda span: span.start_time_ns)
        texts = [span.outputs for span in steps]
        assert [span.name.removesuffix(" ✗") for span in steps] == [f"step {n}: {t}" for n, t in enumerate(texts, 1)]
        assert ";".join([*texts, root.outputs["answer"]]) == root.attributes["completion"]
        assert all(span.parent_id == root.span_id for span in steps)
        assert root.inputs["prompt"].endswith("=")
        assert root.attributes["finish_reason"] == "stop"
        right = root.outputs["answer"] == root.attributes["reference"]
        assert [span.attributes.get("correct") for span in steps] == [True, right, None]
        assert [span.status.status_code for span in steps] == ["OK", "OK" if right else "ERROR", "OK"]
        values = {item.name: item.value for item in trace.info.assessments}
        assert values["correct"] == (root.outputs["answer"] == values["reference"])
    assert {trace.info.assessments[1].value for trace in traces} == {True, False}


def test_following_again_changes_nothing(make_run: MakeRun, store: str, train: Train) -> None:
    run, tracking = make_run()
    train(run).wait()
    first = follow(run.path, tracking, watch=True)
    again = follow(run.path, tracking, watch=True)
    assert again == first
    state = read_json(run.path / "tracking.json")
    forgotten = {"key": state["key"], "directory": state["directory"]}  # killed before it could keep anything
    write_json(run.path / "tracking.json", forgotten)
    assert follow(run.path, tracking, watch=True) == first
    assert_all_there(MlflowClient(store), run, first)


def test_a_folder_made_anew_is_a_new_run(make_run: MakeRun, store: str, train: Train) -> None:
    """The same config in the same place has the same identity; its values must not mix with the first one's."""
    run, tracking = make_run()
    train(run).wait()
    first = follow(run.path, tracking, watch=True)
    shutil.rmtree(run.path)
    run, tracking = make_run()
    train(run).wait()
    second = follow(run.path, tracking, watch=True)
    assert second.run_id != first.run_id
    assert second.complete, second.message


def test_failed_run_is_failed(make_run: MakeRun, store: str, train: Train) -> None:
    run, tracking = make_run()
    train(run, "--end", "failed").wait()
    report = follow(run.path, tracking, watch=True)
    assert report.status == "FAILED"
    assert_all_there(MlflowClient(store), run, report, predictions=0)
    stored = MlflowClient(store).get_run(report.run_id)
    assert stored.info.status == "FAILED"
    assert "loss is not finite" in stored.data.tags["mlflow.note.content"]


def test_killed_run_is_killed_and_goes_on_in_the_same_run(make_run: MakeRun, store: str, train: Train) -> None:
    """`kill -9` leaves no word in any file; the process itself has to be looked at, even as a zombie."""
    run, tracking = make_run()
    client = MlflowClient(store)
    process = train(run, "--end", "hang", "--seconds", "0.01")
    seen: list[str] = []

    def kill_when_running() -> None:
        while not seen:
            found = client.search_runs([item.experiment_id for item in client.search_experiments()])
            seen.extend(item.info.status for item in found if item.data.metrics.get("train/loss"))
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill_when_running)
    killer.start()
    killed = follow(run.path, tracking, watch=True)
    killer.join()
    assert seen == ["RUNNING"]
    assert killed.status == "KILLED"
    assert_all_there(client, run, killed, predictions=0)
    assert client.get_run(killed.run_id).info.status == "KILLED"
    train(run, "--steps", "40").wait()
    finished = follow(run.path, tracking, watch=True)
    assert finished.run_id == killed.run_id
    assert client.get_run(finished.run_id).info.status == "FINISHED"
    assert_all_there(client, run, finished)


def test_a_run_that_still_goes_on_is_sent_as_far_as_it_is(make_run: MakeRun, store: str, train: Train) -> None:
    run, tracking = make_run()
    process = train(run, "--end", "hang")
    while not run.timings_log.exists() or run.timings_log.read_text().count("\n") < 22:
        time.sleep(0.05)
    report = follow(run.path, tracking, watch=False)
    assert (report.status, report.complete) == ("RUNNING", True)
    assert MlflowClient(store).get_run(report.run_id).info.status == "RUNNING"
    process.kill()


def wait_for_more(follower: Follower, offset: int) -> int:
    """Wait until the follower has sent metrics behind `offset`; returns how far it is."""
    state = follower.run_folder / "tracking.json"
    assert follower.process is not None
    while True:
        assert follower.process.poll() is None, "it was to go on as long as the run does"
        sent = read_json(state)["offsets"].get("metrics.jsonl", 0) if state.exists() else 0
        if sent > offset:
            return int(sent)
        time.sleep(0.05)


@pytest.mark.slow
def test_spawned_follower_killed_in_the_middle_loses_and_doubles_nothing(
    make_run: MakeRun, store: str, train: Train
) -> None:
    run, tracking = make_run()
    train(run, "--steps", "0", "--seconds", "0.01")
    follower = spawn(run.path, tracking)
    assert follower.process is not None
    assert follower.wait(0.1) is None
    assert os.getsid(follower.process.pid) == follower.process.pid
    offset = wait_for_more(follower, 0)
    follower.process.kill()
    assert follower.process.wait() == -signal.SIGKILL
    broken = follower.wait(1)
    assert broken is not None
    assert not broken.complete
    assert send_command(run.path) in broken.message
    second = spawn(run.path, tracking)
    wait_for_more(second, offset)
    (run.path / "stop").touch()
    report = second.wait(120)
    assert report is not None
    assert_all_there(MlflowClient(store), run, report)
    assert MlflowClient(store).get_run(report.run_id).info.status == "FINISHED"
    load = history(MlflowClient(store), str(report.run_id), "system/process_memory_megabytes")
    assert len(load) >= 1
    assert "all there" in (run.path / "tracking.log").read_text()


CALLS = ("create_run", "log_batch", "log_artifact", "log_text", "log_dict", "log_inputs", "set_terminated")


@pytest.mark.parametrize("done", [True, False], ids=["answer lost", "refused"])
def test_each_call_that_fails_once_loses_and_doubles_nothing(
    make_run: MakeRun, store: str, train: Train, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    """A server that does its work but whose answer is lost makes a naive sender send twice."""
    from mlflow.tracing.client import TracingClient

    run, tracking = make_run()
    train(run).wait()
    monkeypatch.setattr(station, "POLL", 0.01)
    failed: set[str] = set()

    def fail_once(owner: type, name: str) -> None:
        call = getattr(owner, name)

        def wrapper(*words: Any, **values: Any) -> Any:
            if name in failed:
                return call(*words, **values)
            failed.add(name)
            if done:
                call(*words, **values)
            raise ConnectionError("connection reset")

        monkeypatch.setattr(owner, name, wrapper)

    for name in CALLS:
        fail_once(MlflowClient, name)
    for name in ("log_spans", "start_trace"):
        fail_once(TracingClient, name)
    report = follow(run.path, tracking, watch=True)
    assert failed == {*CALLS, "log_spans", "start_trace"}
    assert_all_there(MlflowClient(store), run, report)


def test_a_difference_is_reported(make_run: MakeRun, store: str, train: Train) -> None:
    run, tracking = make_run()
    train(run).wait()
    first = follow(run.path, tracking, watch=True)
    client = MlflowClient(store)
    client.log_metric(str(first.run_id), "train/loss", 7.0, step=3)
    traces = client.search_traces(locations=[client.get_run(str(first.run_id)).info.experiment_id])
    client.delete_traces(traces[0].info.experiment_id, trace_ids=[traces[0].info.trace_id])
    report = follow(run.path, tracking, watch=True)
    assert not report.complete
    assert "traces: 9 of 10" in report.message
    assert "1 metric values are in the store and not in the files" in report.message
    assert report.message in (run.path / "tracking.log").read_text()


def test_damaged_predictions_are_reported_and_the_rest_is_sent(make_run: MakeRun, store: str, train: Train) -> None:
    """Zeros in a file, as a lost power supply leaves them, must not keep a run from ever being marked."""
    run, tracking = make_run()
    train(run, "--end", "failed").wait()
    run.predictions.write_bytes(b"\0" * 100)
    report = follow(run.path, tracking, watch=True)
    assert not report.complete
    assert "predictions.jsonl:1: binary data" in report.message
    assert report.sent["metrics"] == report.expected["metrics"] > 0
    assert MlflowClient(store).get_run(str(report.run_id)).info.status == "FAILED"


def test_unreachable_server_ends_in_a_message_and_the_rest_can_be_sent_later(
    make_run: MakeRun, store: str, train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = "http://me:secret@127.0.0.1:9"
    run, tracking = make_run(uri=uri, wait_seconds=1.0)
    train(run).wait()
    report = follow(run.path, tracking, watch=True)
    assert not report.complete
    assert "http://me:***@127.0.0.1:9" in report.message
    assert send_command(run.path) in report.message
    assert main([str(run.path)]) == 3
    assert "not everything was sent" in capsys.readouterr().out
    for name in ("tracking.log", "tracking.json"):
        assert "secret" not in (run.path / name).read_text()
    run.config.write_text(run.config.read_text().replace(uri, store))
    assert main([str(run.path)]) == 0
    assert "all there" in capsys.readouterr().out


def test_what_is_no_run_is_refused(tmp_path: Path, make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "not a run folder (no config.yaml)" in capsys.readouterr().err
    run, tracking = make_run()
    with pytest.raises(DataError, match=r"no status\.json"):
        follow(run.path, tracking, watch=False)


def test_tracking_none_starts_nothing(make_run: MakeRun) -> None:
    run, tracking = make_run(kind="none")
    follower = spawn(run.path, tracking)
    assert follower.process is None
    assert follower.wait(1) is None
    assert follow(run.path, tracking, watch=True).complete
    assert {file.name for file in run.path.iterdir()} == {"config.yaml"}


def test_the_training_process_never_imports_mlflow() -> None:
    code = (
        "import sys, tunix_rt.tracking.follow, tunix_rt.tracking.uri; print({'mlflow', 'pandas'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
