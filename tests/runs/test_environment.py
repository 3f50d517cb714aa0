"""The record of the environment: complete, and without secrets."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tunix_rt.files import sha256_file
from tunix_rt.runs.environment import fingerprint, gather


def test_what_is_gathered() -> None:
    record = gather(["python", "-m", "tunix_rt", "HF_TOKEN=abc"], {"name": "torch"})
    assert record["command"] == "python -m tunix_rt HF_TOKEN=***"
    assert record["packages"]["numpy"]
    assert record["machine"]["cores"] >= 1
    assert record["git"] is None or len(record["git"]["commit"]) == 40


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@y", *words], cwd=folder, check=True)


def test_a_repository_with_changes_and_untracked_files(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(work, "init", "-q")
    (work / "a.env").write_text("N=1\n")
    git(work, "add", ".")
    git(work, "commit", "-qm", "first")
    clean = gather([], {})["git"]
    assert (clean["dirty"], clean["diff"], clean["untracked"]) == (False, "", {})
    (work / "new.py").write_text("print()\n")
    untracked = gather([], {})["git"]
    assert untracked["dirty"] and untracked["untracked"] == {"new.py": sha256_file(work / "new.py")}
    (work / "a.env").write_text("N=1\nHF_TOKEN=hf_planted\n")
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "pw")
    record = gather(["x", "tracking.uri=http://u:hunter2@h"], {})
    assert "+HF_TOKEN=***" in record["git"]["diff"]
    assert record["git"]["diff_sha256"] != clean["diff_sha256"]
    shown = json.dumps(record)
    assert "hf_planted" not in shown and "hunter2" not in shown
    variables = record["variables"]
    assert variables["OMP_NUM_THREADS"] == "3"
    assert variables["HF_TOKEN"] == variables["MLFLOW_TRACKING_PASSWORD"] == "***"


def test_the_fingerprint_sees_threads_and_versions() -> None:
    base = {"threads": "2", "jax": "1"}
    assert fingerprint(base) == fingerprint({"jax": "1", "threads": "2"})
    assert fingerprint(base) != fingerprint(base | {"threads": "1"})


def test_a_long_difference_is_recorded_by_its_hash_and_its_beginning(work: Path) -> None:
    git(work, "init", "-q")
    (work / "a.txt").write_text("x\n")
    git(work, "add", ".")
    git(work, "commit", "-qm", "first")
    (work / "a.txt").write_text("changed line\n" * 20_000)
    found = gather([], {})["git"]
    assert len(found["diff"]) < 70_000 and "more characters, which are not recorded" in found["diff"]
    (work / "a.txt").write_text("changed line\n" * 20_001)
    assert gather([], {})["git"]["diff_sha256"] != found["diff_sha256"]
