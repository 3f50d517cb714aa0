"""A run folder of an earlier version is read, verified, asked and predicted with, wherever one stands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.records.conftest import Types
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.sessions import machine_of

RECORDED = Path(__file__).parent / "version_1"


@pytest.mark.slow
def test_a_run_of_version_1_stays_readable(work: Path, types: Types, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents: a release after which nobody can look at what was made before it."""
    shutil.copytree(RECORDED, work / "then")
    (work / "now").mkdir()
    monkeypatch.chdir(work / "now")
    root = ("--root", str(work / "then" / "runs"))
    (record,) = json.loads(types("runs", *root, "--json").out)
    assert (record["run"], record["state"], record["n"]) == ("older/3ccdbb4928cc", "finished", 6)
    assert "# older/3ccdbb4928cc" in types("show", "older", *root).out
    run = RunFolder(work / "then/runs/older/3ccdbb4928cc")
    assert run.data_folder == work / "then/data/sums/9791534c6d35"
    assert run.data_hashes()["sources"].keys() == {"dataset.source.train"}
    assert machine_of(run) == json.loads((run.path / "fingerprint.json").read_text())["fingerprint"]
    verified = types("verify", "older", *root)
    assert verified.code == 0, verified.out + verified.err
    assert "identities: not checked (made by version 0.1" in verified.out
    asked = types("ask", "older", "4+4=", *root)
    assert asked.code == 0 and asked.out.strip(), asked.err
    again = types("predict", "older", "generation.max_new_tokens=4", *root)
    assert again.code == 0, again.err
    assert "train: done by older/3ccdbb4928cc, which is used" in again.err
    assert not (work / "now" / "runs").exists() and not (work / "now" / "data").exists()
    assert types("gc", *root, "--data", str(work / "then" / "data")).out == "nothing can go\n"
