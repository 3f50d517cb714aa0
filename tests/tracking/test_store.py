"""Stores are chosen by name; what can never work is found before the first step, and nobody waits for the rest."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.conftest import TOY
from tests.pipeline.conftest import Person
from tunix_rt.config.execution import TrackingConfig
from tunix_rt.errors import ConfigError, InputError
from tunix_rt.tracking.store import check, names, store_class

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
WORDS = ("backend=torch", *(word for word in TOY if word != "tracking=none"))


@pytest.fixture
def person(work: Path, capfd: pytest.CaptureFixture[str]) -> Person:
    return Person(work, capfd)


@pytest.fixture
def toy(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a store of its own is installed: its module, and the metadata that names it."""
    place = work / "installed"
    metadata = place / "toy_tracker-1.0.dist-info"
    metadata.mkdir(parents=True)
    (place / "toy_store.py").write_text(Path(__file__).with_name("toy_store.py").read_text())
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-tracker\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[tunix_rt.stores]\ntoy = toy_store:ToyStore\n")
    monkeypatch.syspath_prepend(place)
    monkeypatch.setenv("PYTHONPATH", str(place))
    return work / "toy.jsonl"


def section(**values: Any) -> TrackingConfig:
    default = {"stores": {"mlflow": {}}, "uri": "sqlite:///mlflow.db", "experiment": "tests", "num_traces": 0}
    return TrackingConfig(**{**default, "log_model": False, "system_metrics": False, "wait_seconds": 0.0, **values})


@pytest.mark.slow
def test_a_store_of_six_methods_gets_everything_once(toy: Path, person: Person) -> None:
    """Prevents: a tracker that touches many files; a third party's output with a password in `tracking.log`."""
    uri = f"toy://me:hunter22@host{toy}"
    tracked = ("tracking=none", "tracking.stores.toy={}", f"tracking.uri={uri}", "tracking.wait_seconds=60")
    done = person.types(*WORDS, *tracked)
    assert done.code == 0, done.err
    assert "warning: tracking" not in done.err
    assert f"less {toy}" in done.out and f"less {toy}" in (person.run_folder() / "report.md").read_text()
    calls = [json.loads(line) for line in toy.read_text().splitlines()]
    assert [call for call, _ in calls].count("open") == 1 and calls[-1] == ["close", "finished"]
    points = [tuple(point[:2]) for call, value in calls if call == "metrics" for point in value]
    assert [step for key, step in points if key == "train/loss"] == [1, 2, 3, 4, 5, 6]
    assert len(set(points)) == len(points)
    assert [value["training.max_steps"] for call, value in calls if call == "params"][-1] == "6"
    artifacts = [value for call, value in calls if call == "artifact"]
    assert {"config.yaml", "metrics.json", "report.md", "figures/loss.png"} <= set(artifacts)
    assert [len(value) for call, value in calls if call == "table"] == [4]
    log = (person.run_folder() / "tracking.log").read_text()
    assert "View run" in log and "toy://me:***@host" in log
    files = [file for file in person.run_folder().rglob("*") if file.is_file()]
    assert not any(b"hunter22" in file.read_bytes() for file in files)


def test_an_unknown_store_names_those_there_are(toy: Path) -> None:
    assert {"mlflow", "toy"} <= set(names())
    assert store_class("toy").__name__ == "ToyStore"
    for kind in ("comet", "_mlflow_uri", "tests"):
        with pytest.raises(ConfigError, match=r"no store '\w+' \(there are: .*mlflow, .*wandb\)"):
            store_class(kind)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("htp://host:5000", "MLflow knows no htp://"),
        ("dbfs://host", "http://, https:// and databricks)"),
        ("mlruns", "MLflow 3 keeps no runs in plain files"),
        ("file:///tmp/mlruns", "MLflow 3 keeps no runs in plain files"),
        ("postgresql://me:secret@host/db", "psycopg, which is not installed"),
        ("postgresql+nonsense://me:secret@host/db", "nonsense"),
        ("sqlite:///:memory:", "nothing is kept"),
        ("sqlite://", "nothing is kept"),
        ("http://:5000", "no host"),
        ("http://host:port", "not an address"),
        ("sqlite:///broken.db", "not a SQLite file"),
        ("sqlite:///folder", "not a SQLite file"),
    ],
)
def test_a_uri_that_can_never_work_is_found_at_once(uri: str, said: str, work: Path) -> None:
    """Prevents: 33 s of waiting at the end of a run, and a traceback in a log, for what its first second could tell."""
    (work / "broken.db").write_bytes(b"this is no database")
    (work / "folder").mkdir()
    with pytest.raises(ConfigError) as caught:
        check(section(uri=uri))
    assert said in str(caught.value) and "secret" not in str(caught.value)
    with pytest.raises(InputError, match="its password is masked in the record"):
        check(section(uri="http://me:***@host"))


def test_what_can_never_work_costs_no_import_of_mlflow(work: Path) -> None:
    code = """
import sys
from tunix_rt.config.execution import TrackingConfig
from tunix_rt.tracking.store import check
kept = dict(num_traces=0, log_model=False, system_metrics=False, wait_seconds=0.0)
section = dict(stores={"mlflow": {}}, experiment="x", **kept)
for uri in ("htp://host", "mlruns", "sqlite:///a.db"):
    try:
        check(TrackingConfig(uri=uri, **section))
    except Exception as error:
        print(type(error).__name__)
print({"mlflow", "sqlalchemy"} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:3] == ["ConfigError", "ConfigError", "set()"]


@contextmanager
def server(answer: bytes, code: int = 200) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.path} {self.headers.get('Authorization')}")
            self.send_response(code)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    asked: list[str] = []
    served = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=served.serve_forever)
    thread.start()
    try:
        yield f"http://me:p%40ss@127.0.0.1:{served.server_port}"
        expected = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=tests Basic bWU6cEBzcw=="
        assert asked == [expected]
    finally:
        served.shutdown()
        thread.join()
        served.server_close()


def test_a_deleted_experiment_is_found_before_the_first_step(work: Path, empty_store: Path) -> None:
    """Of a file and of a server; a server that is out of reach, or says something else, is none of it."""
    (work / "mlflow.db").write_bytes(empty_store.read_bytes())
    assert check(section()) == []
    with sqlite3.connect(work / "mlflow.db") as store:
        columns = "insert into experiments (experiment_id, name, lifecycle_stage) values (7, 'tests', 'deleted')"
        store.execute(columns)
    store.close()
    said = r"'tests' is deleted in .*: restore it there \(`mlflow experiments restore`\), or name another one"
    with pytest.raises(ConfigError, match=said):
        check(section())
    with server(json.dumps({"experiment": {"lifecycle_stage": "deleted"}}).encode()) as uri:
        with pytest.raises(ConfigError, match=said) as caught:
            check(section(uri=uri))
        assert "p%40ss" not in str(caught.value)
    for answer, code in ((b'{"experiment": {"lifecycle_stage": "active"}}', 200), (b"<html>", 200), (b"no", 404)):
        with server(answer, code) as uri:
            assert check(section(uri=uri)) == []
    with server(b"", 503) as uri:
        assert "is not reachable (Service Unavailable)" in str(check(section(uri=uri)))
    (line,) = check(section(uri=uri))
    assert "http://me:***@127.0.0.1" in line and "is not reachable (Connection refused)" in line


def test_a_config_that_cannot_be_sent_is_exit_2_and_nothing_has_begun(person: Person) -> None:
    for word, said in (("tracking.uri=mlruns", "sqlite:///FILE.db"), ("tracking.stores.mlfow={}", "there are: mlflow")):
        done = person.types(*WORDS, word)
        assert (done.code, said in done.err) == (2, True), done.err
    assert not list(person.folder.glob("runs/*/*/status.json"))


@pytest.mark.slow
def test_nobody_waits_after_a_signal_for_a_server_out_of_reach(person: Person) -> None:
    """Prevents: 60 s between SIGTERM and the end, where a cluster kills after 30."""
    uri = "tracking.uri=http://me:secret@127.0.0.1:9"
    words = (*WORDS, uri, "training.max_steps=100000", "training.evaluate_every=null", "checkpoint.log_every=5")
    command = [sys.executable, "-m", "tunix_rt", *words]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=person.folder, **quiet) as process:
        deadline = time.monotonic() + 120
        while not any(person.folder.glob("runs/*/*/metrics.jsonl")):
            assert process.poll() is None and time.monotonic() < deadline, "it ended before it could be stopped"
            time.sleep(0.02)
        before = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 143
    assert time.monotonic() - before < 5
    assert person.reads("status.json")["state"] == "interrupted"
