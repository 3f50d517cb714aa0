"""What the shell offers: asked for in a subprocess, as the shells ask, and once through bash itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tunix_rt import __main__ as command_line
from tunix_rt.files import write_json

PROGRAM = [sys.executable, "-m", "tunix_rt"]


def offered(line: str, folder: Path, shell: str = "bash") -> set[str]:
    """What the program answers to argcomplete's question."""
    answer = folder / "answer"
    question = {"COMP_LINE": line, "COMP_POINT": str(len(line.encode())), "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n"}
    question |= {"_ARGCOMPLETE_SHELL": shell, "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}
    question |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(PROGRAM, cwd=folder, env=os.environ | question, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {word.strip() for word in answer.read_text("utf-8").split("\n")} - {""}


@pytest.fixture
def runs(work: Path) -> Path:
    """A folder with two runs, and an experiment of a person's own."""
    for name, started in (("mine/aaaaaaaaaaaa", 1.0), ("other/bbbbbbbbbbbb", 2.0)):
        (work / "runs" / name).mkdir(parents=True)
        write_json(work / "runs" / name / "status.json", {"record_version": 2, "state": "finished", "started": started})
    (work / "conf" / "experiment").mkdir(parents=True)
    (work / "conf" / "experiment" / "smallest.yaml").write_text("# @package _global_\nname: smallest\n", "utf-8")
    return work


@pytest.mark.parametrize(
    ("line", "expected", "absent"),
    [
        ("tunix_rt re", {"register", "reproduce"}, "run"),
        ("tunix_rt ", {"ask", "verify", "+experiment=", "model="}, "--cfg"),
        ("tunix_rt --", {"--cfg", "--dry-run", "--help"}, "ask"),
        ("tunix_rt +experiment=sm", {"+experiment=smollm2_traces", "+experiment=smallest"}, "+experiment=quickstart"),
        ("tunix_rt run backend=", {"backend=jax", "backend=torch", "backend=tunix"}, "ask"),
        ("tunix_rt seed=1 model/a", {"model/adapter="}, "model="),
        ("tunix_rt se", {"serve"}, "seed="),
        ("tunix_rt see", {"seed="}, "generation.seed="),
        ("tunix_rt plan run", {"run.new=", "run.root="}, "runs"),
        ("tunix_rt tr", {"training=", "traces"}, "training.max_steps="),
        ("tunix_rt hydra/l", {"hydra/launcher="}, "hydra/sweeper="),
        ("tunix_rt -m hydra/sweeper=o", {"hydra/sweeper=optuna"}, "hydra/sweeper=basic"),
        ("tunix_rt backend.prec", {"backend.precision="}, "backend="),
        ("tunix_rt backend.precision=", {"backend.precision=float32", "backend.precision=bfloat16"}, "ask"),
        ("tunix_rt training.packing=", {"training.packing=true", "training.packing=false"}, "ask"),
        ("tunix_rt ask ", {"last", "mine/aaaaaaaaaaaa", "other/bbbbbbbbbbbb"}, "diff"),
        ("tunix_rt diff last mi", {"mine/aaaaaaaaaaaa"}, "last"),
        ("tunix_rt ask --root nowhere ", {"last"}, "mine/aaaaaaaaaaaa"),
        ("tunix_rt plan +experiment=quick", {"+experiment=quickstart"}, "+experiment=smallest"),
        ("tunix_rt traces --j", {"--json"}, "--help"),
        ("tunix_rt options training.max", {"training.max_steps", "training.max_seconds"}, "training"),
        ("tunix_rt init mine.jsonl --model gp", {"gpt2"}, "gguf"),
    ],
)
def test_what_is_offered(line: str, expected: set[str], absent: str, runs: Path) -> None:
    found = offered(line, runs)
    assert expected <= found
    assert absent not in found


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_may_get_a_help_text_with_each_word(shell: str, runs: Path) -> None:
    found = offered("tunix_rt verify mi", runs, shell)
    assert {word.partition(":" if shell == "zsh" else "\t")[0] for word in found} == {"mine/aaaaaaaaaaaa"}


def test_bash_completes_after_the_line_that_installs_it(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The printed line is evaluated, then the function that it registers is called as bash does it for Tab."""
    monkeypatch.setenv("SHELL", "/bin/bash")
    assert command_line.main(["completion"]) == 0
    install = capsys.readouterr().out
    assert install.startswith('eval "$(') and install.count("\n") == 1
    program = runs / "tunix_rt"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tunix_rt "$@"\n', "utf-8")
    program.chmod(0o755)
    typed = "tunix_rt +experiment=quick"
    press = f'{install}\ncomplete -p tunix_rt\nCOMP_LINE="{typed}" COMP_POINT={len(typed)} COMP_TYPE=9\n'
    press += f'_python_argcomplete {program}\nprintf "%s\\n" "${{COMPREPLY[@]}}"\n'
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", press], cwd=runs, env=environment, capture_output=True, text=True, check=False)
    registered, *words = done.stdout.splitlines()
    assert registered.endswith("-F _python_argcomplete tunix_rt"), done.stderr
    assert [word.strip() for word in words] == ["quickstart"], "the part behind `=`, where bash begins a word"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_code_of_each_shell(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["completion", shell]) == 0
    code = capsys.readouterr().out
    assert {"bash": "complete ", "zsh": "compdef _python_argcomplete tunix_rt", "fish": "complete --command tunix_rt"}[
        shell
    ] in code
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=code, text=True, check=False).returncode == 0
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    assert command_line.main(["completion"]) == 0
    assert f"-m tunix_rt completion {shell}" in capsys.readouterr().out


def test_nothing_heavy_is_imported_for_a_key(runs: Path) -> None:
    """Prevents: a second for each Tab."""
    question = {"COMP_LINE": "tunix_rt re", "COMP_POINT": "11", "_ARGCOMPLETE": "1", "PYTHONPATH": str(ROOT)}
    question |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(runs / "answer")}
    command = [sys.executable, "-X", "importtime", "-m", "tunix_rt"]
    done = subprocess.run(command, cwd=runs, env=os.environ | question, capture_output=True, text=True, check=False)
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argcomplete" in names
    assert names.isdisjoint({"numpy", "hydra", "pydantic", "mlflow", "jax", "torch"})
