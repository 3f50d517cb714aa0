"""The store itself: opened by many at once, or not there at first."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest
from mlflow.tracking import MlflowClient

from tunix_rt.config.execution import TrackingConfig
from tunix_rt.runs.folder import RunFolder
from tunix_rt.tracking import follow as station
from tunix_rt.tracking.follow import FollowReport, follow
from tunix_rt.tracking.mlflow import MlflowRun, StoreError, connect, store_errors

MakeRun = Callable[..., tuple[RunFolder, TrackingConfig]]
Train = Callable[..., subprocess.Popen[bytes]]

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

TAGS = {"tunix_rt.identity": "0123456789ab", "tunix_rt.key": "a", "tunix_rt.run_folder": "/runs/a"}


@pytest.mark.slow
def test_eight_processes_open_a_fresh_sqlite_store_together(tmp_path: Path) -> None:
    """MLflow alone fails in seven of them: 'table already exists'."""
    file = tmp_path / "new" / "mlflow.db"
    script = Path(__file__).with_name("eight_at_once.py")
    done = subprocess.run([sys.executable, str(script), str(file)], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == str([0] * 8), done.stderr[-3000:]
    client = MlflowClient(f"sqlite:///{file}")
    experiment = client.get_experiment_by_name("together")
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 8
    assert experiment.artifact_location == (tmp_path / "new" / "mlruns" / "together").as_uri()


def test_a_run_is_found_by_its_id_and_by_its_tags(store: str) -> None:
    def run_id(known: str | None = None, **changed: str) -> str:
        tags = TAGS | {f"tunix_rt.{name}": value for name, value in changed.items()}
        return MlflowRun.find_or_create(store, "tests", tags, known, 1_700_000_000_000).run_id

    first = run_id()
    assert run_id() == first, "its id was lost before it could be kept"
    assert run_id(run_folder="/moved", host="there") == first
    assert run_id(key="b") != first
    assert run_id(known=first, key="c") != first, "the id of another run"
    assert run_id(identity="ffff") != first
    assert run_id(known="0" * 32) == first, "an id that the store does not know"
    MlflowClient(store).delete_run(first)
    assert run_id(known=first) != first, "a run that somebody deleted"


def test_a_deleted_experiment_is_a_clear_error(store: str) -> None:
    client = connect(store)
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(StoreError, match="'gone' is deleted in sqlite"):
        MlflowRun.find_or_create(store, "gone", TAGS, None, 0)


def test_a_file_that_is_no_database_is_told_at_once(tmp_path: Path) -> None:
    """MLflow tries such a file ten times, for a hundred seconds."""
    (tmp_path / "broken.db").write_bytes(b"this is no database")
    with pytest.raises(StoreError, match=r"broken\.db: not a SQLite file"):
        connect(f"sqlite:///{tmp_path}/broken.db")


def test_store_errors_are_one_line_without_the_password() -> None:
    for uri in ("http://me:secret@127.0.0.1:9", "nonsense://me:secret@host"):
        with pytest.raises(StoreError) as caught, store_errors(uri):
            MlflowRun.find_or_create(uri, "tests", TAGS, None, 0)
        assert "me:***@" in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_parameters_that_changed_are_named_and_the_first_value_stays(store: str) -> None:
    run = MlflowRun.find_or_create(store, "tests", TAGS, None, 0)
    many = {f"p{number}": str(number) for number in range(250)}
    assert run.log_parameters(many | {"long": "x" * 5000}) == []
    assert run.log_parameters(many | {"p7": "other", "new": "1"}) == ["p7"]
    params = MlflowClient(store).get_run(run.run_id).data.params
    assert (len(params), params["p7"], params["new"]) == (252, "7", "1")
    assert len(params["long"]) == 500
    assert "long_params.json" in run.stored_files()


@pytest.mark.slow
def test_a_server_that_starts_late_gets_everything(
    make_run: MakeRun, store: str, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    run, tracking = make_run(uri=uri, wait_seconds=120.0)
    monkeypatch.setattr(station, "LONGEST_DELAY", 1.0)
    training = train(run, "--end", "hang-after-results")
    reports: list[FollowReport] = []
    follower = threading.Thread(target=lambda: reports.append(follow(run.path, tracking, watch=True)))
    follower.start()
    log = run.path / "tracking.log"
    while not (log.exists() and "trying again" in log.read_text()):
        time.sleep(0.1)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    places = ["--backend-store-uri", store, "--artifacts-destination", str(tmp_path / "artifacts")]
    with (tmp_path / "server.log").open("wb") as out:
        server = subprocess.Popen([*command, *places], stdout=out, stderr=out)
    try:
        while "takes what it is sent again" not in log.read_text():
            assert server.poll() is None, (tmp_path / "server.log").read_text()
            time.sleep(0.1)
        training.kill()
        follower.join()
        with urlopen(f"{uri}/health") as answer:
            assert answer.read() == b"OK"
    finally:
        server.terminate()
        server.wait()
    [report] = reports
    assert report.complete, report.message
    client = MlflowClient(store)
    assert client.get_run(str(report.run_id)).info.status == "KILLED"
    steps = [point.step for point in client.get_metric_history(str(report.run_id), "train/loss")]
    assert sorted(steps) == list(range(1, 21))
    traces = client.search_traces(locations=[client.get_run(str(report.run_id)).info.experiment_id])
    assert len(traces) == report.expected["traces"] == 10
