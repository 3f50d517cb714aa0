"""The command in processes of its own, on machines that lack something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import config_of
from tunix_rt import hints
from tunix_rt.commands.doctor import main
from tunix_rt.config.choices import BACKENDS
from tunix_rt.doctor.finding import Finding, Place
from tunix_rt.doctor.subjects import dvc
from tunix_rt.errors import InputError

QUICK = ("tracking=none",)
FAKES = {
    "jax": "__version__ = '0.8.0'\nclass D: device_kind = 'TPU v4'\ndef devices(): return [D(), D()]",
    "torch": "raise SystemExit(3)",
    "tunix": "",
}
"""Frameworks of a line: their real import takes seconds, and says nothing about this command."""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with those frameworks, and empty homes."""
    for name, text in FAKES.items():
        (tmp_path / "packages").mkdir(exist_ok=True)
        (tmp_path / "packages" / f"{name}.py").write_text(text + "\n")
    (tmp_path / "bin").mkdir()
    return tmp_path


def doctor(machine: Path, *words: str, seconds: str = "60", **variables: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and each finding by its name."""
    own = {"PYTHONPATH": str(machine / "packages"), "XDG_CACHE_HOME": str(machine / "cache"), "HF_HUB_OFFLINE": "0"}
    path = f"{machine / 'bin'}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "tunix_rt", "doctor", "--json", "--seconds", seconds, *(words or QUICK)]
    env = os.environ | own | {"PATH": path} | variables
    done = subprocess.run(command, cwd=machine, env=env, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    said = json.loads(done.stdout)
    assert said["works"] == (done.returncode == 0), done.stderr
    assert "hf_0123456789" not in done.stdout
    return done.returncode, {check["name"]: check for check in said["checks"]}


def program(machine: Path, name: str, text: str) -> None:
    file = machine / "bin" / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


def test_one_framework_is_enough_and_one_that_crashes_is_a_line(machine: Path) -> None:
    code, found = doctor(machine, HF_TOKEN="hf_0123456789")
    assert code == 0
    assert (found["jax"]["state"], found["jax"]["text"]) == ("works", "0.8.0; sees 2 × TPU v4")
    assert (found["torch"]["state"], found["torch"]["text"]) == ("broken", "exit code 3")
    assert found["hub"]["text"] == "logged in, for gated models"
    assert found["NVIDIA driver"]["state"] == "absent" or found["NVIDIA driver"]["text"]


def test_a_machine_that_lacks_nearly_everything(machine: Path) -> None:
    """No framework answers in time, the driver is old, the tracking server does not answer, nothing can be written."""
    for name in ("jax", "torch"):
        (machine / "packages" / f"{name}.py").write_text("import time; time.sleep(600)\n")
    (machine / "packages" / "tunix.py").write_text("")
    program(machine, "nvidia-smi", "echo '| Driver Version: 470.82.01   CUDA Version: 11.4 |'")
    (machine / "cache").mkdir()
    (machine / "cache" / "tunix_rt").write_text("a file is in the way")
    (machine / "runs").write_text("here too")
    words = ("tracking.uri=http://me:hunter22@127.0.0.1:9", "+tracking.stores.wandbb={}")
    code, found = doctor(machine, *words, seconds="1", HF_HUB_OFFLINE="1")
    assert code == 1
    assert found["jax"]["text"] == found["torch"]["text"] == "no answer within 5 s: it hangs, or the machine is busy"
    assert found["jax"]["stops"] and not found["torch"]["stops"], "the declared one is needed"
    driver = found["NVIDIA driver"]
    assert driver["state"] == "broken" and "470.82.01, for CUDA up to 11.4, but" in driver["text"]
    assert "install a driver ≥" in driver["remedy"]
    assert found["mlflow"]["state"] == "broken" and not found["mlflow"]["stops"], "the run goes on"
    assert "http://me:***@127.0.0.1:9 is not reachable (Connection refused)" in found["mlflow"]["text"]
    assert found["wandbb"]["stops"] and "no store 'wandbb' (there are: mlflow, " in found["wandbb"]["text"]
    assert found["cache"]["state"] == "broken" and "XDG_CACHE_HOME" in found["cache"]["remedy"]
    assert found["runs"]["state"] == "broken" and found["runs"]["stops"]
    assert found["hub's network"]["remedy"] == "unset HF_HUB_OFFLINE"


@pytest.mark.parametrize("name", BACKENDS)
def test_a_framework_that_is_not_installed_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunix_rt.doctor.subjects import frameworks

    monkeypatch.setattr(frameworks, "installed", lambda package: False)
    found = frameworks._probed(name, 1.0)
    option = "--no-dev" if name == "tunix" else "--inexact"
    assert (found.state, found.remedy) == ("absent", f"uv sync {option} --extra {BACKENDS[name].extra}")


def test_the_declared_framework_is_the_one_that_a_run_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents: `a run would work` where only another framework is there, and the first run ends with an error."""
    from tunix_rt.doctor.subjects import frameworks

    def probed(name: str, _: float) -> Finding:
        return (
            Finding(name, "works", "2.9") if name == "torch" else Finding(name, "absent", "not installed", "install it")
        )

    monkeypatch.setattr(frameworks, "_probed", probed)
    found = {
        backend: frameworks.findings(Place(config_of([f"backend={backend}"]), 1.0)) for backend in ("jax", "torch")
    }
    assert [one.name for one in found["jax"] if one.stops] == ["jax"]
    assert found["jax"][0].remedy == "install it, or backend=torch"
    assert not any(one.stops for one in found["torch"])


def test_an_extra_is_added_to_what_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Prevents: a command that removes other extras, or that uv refuses."""
    assert hints.install("standard") == "uv sync --inexact --extra standard"
    monkeypatch.setattr(hints, "CHECKOUT", tmp_path)
    assert hints.install("tunix") == "pip install 'tunix_rt[tunix]'"


def test_an_extra_is_complete_only_with_what_its_own_extras_want(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents: `jax-cuda` counted as installed where only jax is."""
    from tunix_rt.doctor.subjects import extras

    there = {"jax", "flax", "optax"}
    monkeypatch.setattr(extras, "version", lambda name: "1" if name in there else None)
    assert "jax-cuda13-plugin" in list(extras._missing("tunix_rt", "jax-cuda"))
    assert list(extras._missing("tunix_rt", "jax")) == []


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_a_check_may_wait_some_time(seconds: str) -> None:
    """Prevents: frameworks that are called dead, since nobody waited for them."""
    with pytest.raises(InputError, match=r"--seconds .*: a number above 0"):
        main(["--seconds", seconds])


def test_a_damaged_config_of_dvc_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[[[\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dvc, "installed", lambda _: True)
    (_, found) = dvc.findings(Place(config_of(()), 1.0))
    assert found.state == "broken" and ".dvc/config: File contains no section headers." in found.text
