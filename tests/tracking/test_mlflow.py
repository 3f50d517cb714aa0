"""The store itself: opened by many at once, or not there at first."""

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
from mlflow.tracking import MlflowClient

from tests.tracking.conftest import MakeRun, Train
from tunix_rt.tracking import sync as process
from tunix_rt.tracking.remove import models, remove, stored
from tunix_rt.tracking.state import SyncReport
from tunix_rt.tracking.store import Entry, Facts, StoreError, StoreRefused
from tunix_rt.tracking.stores._mlflow_pages import metric_key
from tunix_rt.tracking.stores.mlflow import MlflowStore, connect
from tunix_rt.tracking.sync import sync_folder

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

TAGS = {"tunix_rt.identity": "0123456789ab", "tunix_rt.key": "a", "tunix_rt.run_folder": "/runs/a"}


def entry(tags: dict[str, str] = TAGS, known: str | None = None, parent: str | None = None) -> Entry:
    return Entry("a", tags, 1_700_000_000_000, Path(), known, parent, running=False)


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
        return MlflowStore(store, "tests").open(entry(tags, known))

    first = run_id()
    assert run_id() == first, "its id was lost before it could be kept"
    assert run_id(run_folder="/moved", host="there") == first
    assert run_id(key="b") != first
    assert run_id(known=first, key="c") != first, "the id of another run"
    assert run_id(identity="ffff") != first
    assert run_id(known="0" * 32) == first, "an id that the store does not know"
    MlflowClient(store).delete_run(first)
    assert run_id(known=first) != first, "a run that somebody deleted"


def test_what_never_will_work_is_not_tried_again(make_run: MakeRun, store: str, train: Train, tmp_path: Path) -> None:
    """A deleted experiment, a file that is no database (MLflow tries that ten times, for a hundred seconds)."""
    client = connect(store)
    client.delete_experiment(client.create_experiment("gone"))
    run, tracking = make_run(experiment="gone")
    train(run).wait()
    report = sync_folder(run, tracking, watch=True)
    assert not report.complete and "'gone' is deleted in sqlite" in report.message
    assert "trying again" not in (run.path / "tracking.log").read_text()
    (tmp_path / "broken.db").write_bytes(b"this is no database")
    with pytest.raises(StoreRefused, match=r"broken\.db: not a SQLite file"):
        connect(f"sqlite:///{tmp_path}/broken.db")
    with pytest.raises(StoreRefused, match="psycopg"):
        MlflowStore("postgresql://me:secret@host/db", "tests").open(entry())


def test_store_errors_are_one_line_without_the_password() -> None:
    for uri in ("http://me:secret@127.0.0.1:9", "nonsense://me:secret@host"):
        with pytest.raises(StoreError) as caught:
            MlflowStore(uri, "tests").open(entry())
        assert "me:***@" in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_parameters_that_changed_are_named_and_the_first_value_stays(
    store: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = MlflowStore(store, "tests")
    run_id = run.open(entry())
    many = {f"p{number}": str(number) for number in range(250)}
    run.params(Facts(many | {"long": "x" * 5000}))
    assert [record for record in caplog.records if record.name != "filelock"] == []
    run.params(Facts(many | {"p7": "other", "new": "1"}))
    assert "parameter p7: MLflow keeps the value sent first" in caplog.text
    params = MlflowClient(store).get_run(run_id).data.params
    assert (len(params), params["p7"], params["new"]) == (252, "7", "1")
    assert len(params["long"]) == 500
    assert "long_params.json" in {item.path for item in MlflowClient(store).list_artifacts(run_id)}


def test_a_run_is_removed_from_its_store_and_what_was_made_of_it_named(
    make_run: MakeRun, store: str, train: Train
) -> None:
    """Prevents: a run removed here that stays in MLflow without a word."""
    run, tracking = make_run(num_traces=0)
    assert (stored(run), models(run), remove(run)) == ([], [], [])
    train(run).wait()
    run_id = str(sync_folder(run, tracking, watch=True).run_id)
    client = MlflowClient(store)
    client.create_registered_model("toy")
    client.create_model_version("toy", "file:///model", run_id)
    (found,) = stored(run)
    assert (found.kind, found.store, found.run_id) == ("mlflow", store, run_id)
    assert models(run) == ["models:/toy/1"]
    assert remove(run) == remove(run) == [found]
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
    again = sync_folder(run, tracking, watch=True)
    assert again.run_id != run_id and again.complete


@pytest.mark.slow
def test_a_server_that_starts_late_gets_everything(
    make_run: MakeRun, store: str, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    run, tracking = make_run(uri=uri)
    monkeypatch.setattr(process, "LONGEST_DELAY", 1.0)
    training = train(run, "--end", "hang-after-results")
    reports: list[SyncReport] = []
    syncing = threading.Thread(target=lambda: reports.append(sync_folder(run, tracking, watch=True)))
    syncing.start()
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
        syncing.join()
        with urlopen(f"{uri}/health") as answer:
            assert answer.read() == b"OK"
    finally:
        server.terminate()
        server.wait()
    [report] = reports
    assert report.complete, report.message
    client = MlflowClient(store)
    assert client.get_run(str(report.run_id)).info.status == "KILLED"
    steps = [point.step for point in client.get_metric_history(str(report.run_id), "2_train/loss")]
    assert sorted(steps) == list(range(1, 13))
    traces = client.search_traces(locations=[client.get_run(str(report.run_id)).info.experiment_id])
    assert len(traces) == 10


def test_the_reward_is_the_first_section() -> None:
    keys = ["train/loss", "rollout/reward_low", "rollout/kl", "score/accuracy", "rollout/reward", "eval/loss"]
    assert sorted(map(metric_key, keys)) == [
        *("0_reward/reward", "0_reward/reward_low", "1_score/accuracy", "2_rollout/kl", "2_train/loss"),
        "3_validation/loss",
    ]
    assert metric_key("preference/accuracy") == "0_preference/accuracy"
