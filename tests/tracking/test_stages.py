"""A run that several commands make, a stage each, as DVC does: the sync process serves all of them."""

from __future__ import annotations

import pytest
from mlflow.tracking import MlflowClient

from tests.tracking.conftest import MakeRun, Train
from tunix_rt.files import read_json, write_json
from tunix_rt.tracking.state import report_on
from tunix_rt.tracking.sync import RunSync, serve

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
"""MLflow's own code, with the newest SQLAlchemy."""


def test_a_stage_that_begins_and_ends_while_the_last_is_sent_is_sent_too(
    make_run: MakeRun, store: str, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents: a run that MLflow shows as scheduled for ever, since its end was taken for sent."""
    run, _ = make_run()
    train(run).wait()
    file = run.path / "status.json"
    finished = read_json(file)
    write_json(file, finished | {"state": "waiting"})
    close, later = RunSync.close, finished["started"] + 1

    def slow(self: RunSync, status: str) -> object:
        if status == "waiting":
            write_json(file, finished | {"started": later})
        return close(self, status)  # type: ignore[arg-type]

    monkeypatch.setattr(RunSync, "close", slow)
    report = serve(run, None)
    assert report.status == "finished" and report_on(run, ["mlflow"]) == report
    assert MlflowClient(store).get_run(str(report.run_id)).info.status == "FINISHED"
