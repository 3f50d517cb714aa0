"""The sync process against a real MLflow, a recorded run that is replayed, and real deaths."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from tests.tracking.conftest import PREDICTIONS, MakeRun, Train
from tunix_rt.errors import DataError
from tunix_rt.files import read_json, write_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.tracking import sync as process
from tunix_rt.tracking.content import parameters, read_config, records
from tunix_rt.tracking.state import SyncReport, SyncState
from tunix_rt.tracking.stores._mlflow_pages import metric_key
from tunix_rt.tracking.sync import main, sync_folder
from tunix_rt.tracking.syncer import Syncer, send_command, served_by, start

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
"""MLflow's own code, with the newest SQLAlchemy."""


def history(client: MlflowClient, run_id: str, key: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in client.get_metric_history(run_id, key))


def recorded_points(run: RunFolder, key: str) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in run.metrics_log.read_text().splitlines()]
    return sorted((line["step"], line[key]) for line in lines if key in line)


def files(client: MlflowClient, run_id: str, folder: str | None = None) -> set[str]:
    found: set[str] = set()
    for item in client.list_artifacts(run_id, folder):
        found |= files(client, run_id, item.path) if item.is_dir else {item.path}
    return found


def note(stored: Run) -> str:
    return str(stored.data.tags["mlflow.note.content"])


def assert_all_there(client: MlflowClient, run: RunFolder, report: SyncReport, predictions: int = PREDICTIONS) -> None:
    """The store compared with the files: everything once, and nothing else."""
    assert report.complete, report.message
    run_id = str(report.run_id)
    for key in ("train/loss", "train/learning_rate", "eval/loss"):
        assert len(recorded_points(run, key)) >= 2, "the test would prove nothing"
        assert history(client, run_id, metric_key(key)) == recorded_points(run, key)
    stored = client.get_run(run_id)
    assert stored.data.params.keys() == parameters(read_config(run)).keys()
    assert len(stored.inputs.dataset_inputs) == 3
    assert files(client, run_id) >= records(run).keys()
    experiment = stored.info.experiment_id
    assert len(client.search_runs([experiment])) == 1
    traces = client.search_traces(locations=[experiment], max_results=100)
    assert len(traces) == min(predictions, 10)
    assert all(len(trace.data.spans) >= 3 and len(trace.info.assessments) == 2 for trace in traces)
    if predictions:
        place = client.download_artifacts(run_id, "predictions.json")
        assert len(read_json(Path(place))["data"]) == predictions


def test_finished_run_is_all_in_the_store(make_run: MakeRun, store: str, train: Train) -> None:
    run, tracking = make_run(log_model=True)
    train(run).wait()
    report = sync_folder(run, tracking, watch=True)
    client = MlflowClient(store)
    assert_all_there(client, run, report)
    model = client.download_artifacts(str(report.run_id), "model")
    assert (Path(model) / "model.safetensors").read_bytes() == (run.model / "model.safetensors").read_bytes()
    stored = client.get_run(report.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "quickstart-01234567"
    assert stored.data.params["training.max_steps"] == "6"
    metrics = read_json(run.metrics)
    assert stored.data.metrics["1_score/accuracy"] == metrics["accuracy"]["value"] == 0.9
    sections = {key.partition("/")[0] for key in stored.data.metrics}
    assert sections >= {"1_score", "2_train", "3_validation", "4_timings"}, "in the order in which MLflow shows them"
    experiment = client.get_experiment(stored.info.experiment_id)
    columns = json.loads(experiment.tags["mlflow.sharedViewState.scores"])["selectedColumns"]
    assert {f"metrics.`{key}`" for key in stored.data.metrics} >= {one for one in columns if one.startswith("metrics")}
    page = f"#/experiments/{experiment.experiment_id}/runs/{report.run_id}?workflowType=machine_learning"
    assert SyncState.load(run.path).page == f"http://127.0.0.1:5000/{page}" and page in note(stored)
    environment = read_json(run.environment)
    assert stored.data.tags["mlflow.source.name"] == environment["command"]
    assert stored.data.tags["tunix_rt.backend"] == "torch"
    assert stored.data.tags["version.torch"] == environment["packages"]["torch"]
    assert "27 of 30" in note(stored) and "figures/" not in note(stored)
    data = read_json(run.data)
    digests = {item.dataset.name: item.dataset.digest for item in stored.inputs.dataset_inputs}
    assert digests[f"{data['name']}/train"] == data["splits"]["train"]["sha256"][:16]
    contexts = {item.dataset.name: item.tags[0].value for item in stored.inputs.dataset_inputs}
    assert contexts[f"{data['name']}/train"] == "training"
    assert contexts[f"{data['name']}/test"] == "testing"


def test_table_and_traces_are_readable_as_mlflow_reads_them(
    make_run: MakeRun, store: str, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)  # `load_table` asks the global store besides the client's
    run, tracking = make_run(num_traces=PREDICTIONS)
    train(run).wait()
    report = sync_folder(run, tracking, watch=False)
    client = MlflowClient(store)
    experiment = client.get_run(report.run_id).info.experiment_id
    table = client.load_table(experiment, "predictions.json", run_ids=[report.run_id])
    assert len(table) == PREDICTIONS
    assert list(table["correct"]) == [False] * 3 + [True] * (PREDICTIONS - 3), "wrong ones first"
    lines = [json.loads(line) for line in run.predictions.read_text().splitlines()]
    steps_of = {line["id"]: line["steps"] for line in lines}
    assert {row["id"]: row["steps"].splitlines() for _, row in table.iterrows()} == steps_of
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
        assert [span.attributes["correct"] for span in steps] == [True, right, *[True] * (len(steps) - 2)]
        assert [span.status.status_code == "OK" for span in steps] == [span.attributes["correct"] for span in steps]
        values = {item.name: item.value for item in trace.info.assessments}
        assert values["correct"] == right and values["reference"] == root.attributes["reference"]
    assert len(traces) == PREDICTIONS
    assert {trace.info.assessments[1].value for trace in traces} == {True, False}


def test_sending_again_changes_nothing(make_run: MakeRun, store: str, train: Train) -> None:
    run, tracking = make_run()
    train(run).wait()
    first = sync_folder(run, tracking, watch=True)
    again = sync_folder(run, tracking, watch=True)
    assert again == first
    state = read_json(run.path / "tracking.json")
    forgotten = {"key": state["key"], "directory": state["directory"]}  # killed before it could keep anything
    write_json(run.path / "tracking.json", forgotten)
    assert sync_folder(run, tracking, watch=True) == first
    assert_all_there(MlflowClient(store), run, first)


def test_a_folder_made_anew_is_a_new_run(make_run: MakeRun, store: str, train: Train) -> None:
    """The same config in the same place has the same identity; its values must not mix with the first one's."""
    run, tracking = make_run()
    train(run).wait()
    first = sync_folder(run, tracking, watch=True)
    shutil.rmtree(run.path)
    run, tracking = make_run()
    train(run).wait()
    second = sync_folder(run, tracking, watch=True)
    assert second.run_id != first.run_id
    assert second.complete, second.message


def test_failed_run_is_failed(make_run: MakeRun, store: str, train: Train) -> None:
    run, tracking = make_run()
    train(run, "--end", "failed").wait()
    report = sync_folder(run, tracking, watch=True)
    assert report.status == "failed"
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
            seen.extend(item.info.status for item in found if item.data.metrics.get("2_train/loss"))
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill_when_running)
    killer.start()
    killed = sync_folder(run, tracking, watch=True)
    killer.join()
    assert seen == ["RUNNING"]
    assert killed.status == "killed"
    assert_all_there(client, run, killed, predictions=0)
    assert client.get_run(killed.run_id).info.status == "KILLED"
    train(run, "--steps", "40").wait()
    finished = sync_folder(run, tracking, watch=True)
    assert finished.run_id == killed.run_id
    assert client.get_run(finished.run_id).info.status == "FINISHED"
    assert_all_there(client, run, finished)


def test_a_run_that_still_goes_on_is_sent_as_far_as_it_is(make_run: MakeRun, store: str, train: Train) -> None:
    run, tracking = make_run()
    process = train(run, "--end", "hang")
    while not run.timings_log.exists() or run.timings_log.read_text().count("\n") < 16:
        time.sleep(0.05)
    report = sync_folder(run, tracking, watch=False)
    assert (report.status, report.complete) == ("running", True)
    assert MlflowClient(store).get_run(report.run_id).info.status == "RUNNING"
    process.kill()


def wait_for_more(syncer: Syncer, offset: int) -> int:
    """Wait until metrics behind `offset` have been sent; returns how far it is."""
    state = syncer.folder / "tracking.json"
    assert syncer.process is not None
    while True:
        assert syncer.process.poll() is None, "it was to go on as long as the run does"
        sent = read_json(state)["offsets"].get("metrics.jsonl", 0) if state.exists() else 0
        if sent > offset:
            return int(sent)
        time.sleep(0.05)


@pytest.mark.slow
def test_a_sync_process_killed_in_the_middle_loses_and_doubles_nothing(
    make_run: MakeRun, store: str, train: Train
) -> None:
    """Started as a run starts it; one that is there already serves another command of the same run too."""
    run, tracking = make_run()
    train(run, "--steps", "0", "--seconds", "0.05")
    syncer = start(run.path, tracking)
    assert syncer.process is not None
    assert syncer.wait(0.1) is None
    assert start(run.path, tracking).process is None, "it is there"
    assert os.getsid(syncer.process.pid) == syncer.process.pid
    offset = wait_for_more(syncer, 0)
    syncer.process.kill()
    assert syncer.process.wait() == -signal.SIGKILL
    broken = syncer.wait(1)
    assert broken is not None
    assert not broken.complete
    assert send_command(run.path, tracking.uri) in broken.message
    second = start(run.path, tracking)
    wait_for_more(second, offset)
    (run.path / "stop").touch()
    report = second.wait(120)
    assert report is not None
    assert_all_there(MlflowClient(store), run, report)
    assert MlflowClient(store).get_run(report.run_id).info.status == "FINISHED"
    load = history(MlflowClient(store), str(report.run_id), "system/process_memory_megabytes")
    assert len(load) >= 1
    assert "all sent" in (run.path / "tracking.log").read_text()
    assert second.process is not None and second.process.wait(60) == 0
    assert served_by(run.path) is None and not (run.path / "tracking_process.json").exists()


CALLS = ("create_run", "log_batch", "log_artifact", "log_text", "log_inputs", "set_terminated")


@pytest.mark.parametrize("done", [True, False], ids=["answer lost", "refused"])
def test_each_call_that_fails_once_loses_and_doubles_nothing(
    make_run: MakeRun, store: str, train: Train, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    """A server that does its work but whose answer is lost makes a naive sender send twice."""
    from mlflow.tracing.client import TracingClient

    run, tracking = make_run()
    train(run).wait()
    monkeypatch.setattr(process, "POLL", 0.01)
    monkeypatch.setattr(process, "GLANCE", 0.01)
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
    report = sync_folder(run, tracking, watch=True)
    assert failed == {*CALLS, "log_spans", "start_trace"}
    assert_all_there(MlflowClient(store), run, report)


def test_torn_predictions_are_left_out_and_the_rest_is_sent(
    make_run: MakeRun, store: str, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    """Zeros in a file, as a lost power supply leaves them, are left out, and the run is marked nevertheless."""
    run, tracking = make_run()
    train(run, "--end", "failed").wait()
    run.predictions.write_bytes(b"\0" * 100)
    report = sync_folder(run, tracking, watch=True)
    assert report.complete, "nothing of those lines can be sent, now or later"
    assert "predictions.jsonl:1: a torn line" in capsys.readouterr().err
    client = MlflowClient(store)
    assert client.get_run(str(report.run_id)).info.status == "FAILED"
    assert history(client, str(report.run_id), "2_train/loss") == recorded_points(run, "train/loss")


def test_unreachable_server_ends_in_a_message_and_the_rest_can_be_sent_later(
    make_run: MakeRun, store: str, train: Train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents: a command to send later that does not work, for the password that no file has."""
    uri = "http://me:secret@127.0.0.1:9"
    run, tracking = make_run(uri=uri)
    train(run).wait()
    monkeypatch.setattr(process, "PATIENCE", 0.5)
    report = sync_folder(run, tracking, watch=True)
    assert not report.complete
    assert "http://me:***@127.0.0.1:9" in report.message
    assert "TUNIX_RT_TRACKING_URI='http://me:***@127.0.0.1:9' " in report.message
    monkeypatch.delenv("TUNIX_RT_TRACKING_URI", raising=False)
    run.config.write_text(run.config.read_text().replace("secret", "***"))
    assert main([str(run.path)]) == 2
    assert "the password is masked; give the whole URI in TUNIX_RT_TRACKING_URI" in capsys.readouterr().err
    monkeypatch.setenv("TUNIX_RT_TRACKING_URI", uri)
    assert main([str(run.path)]) == 3
    assert "not everything was sent" in capsys.readouterr().out
    for name in ("tracking.log", "tracking.json"):
        assert "secret" not in (run.path / name).read_text()
    monkeypatch.setenv("TUNIX_RT_TRACKING_URI", store)
    assert main([str(run.path)]) == 0
    assert "all sent" in capsys.readouterr().out


def test_what_is_no_run_is_refused(tmp_path: Path, make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "not a run folder (no config.yaml)" in capsys.readouterr().err
    run, tracking = make_run()
    with pytest.raises(DataError, match=r"no status\.json"):
        sync_folder(run, tracking, watch=False)


def test_tracking_none_starts_nothing(make_run: MakeRun) -> None:
    run, tracking = make_run(stores={})
    syncer = start(run.path, tracking)
    assert syncer.process is None
    assert syncer.wait(1) is None
    assert sync_folder(run, tracking, watch=True).complete
    assert {file.name for file in run.path.iterdir()} == {"config.yaml"}


def test_the_training_process_never_imports_mlflow() -> None:
    modules = "tunix_rt.tracking.syncer, tunix_rt.tracking.stores.mlflow"
    code = f"import sys, {modules}; print({{'mlflow', 'pandas', 'sqlalchemy', 'requests'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
