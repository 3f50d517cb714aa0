"""What people type and mean otherwise: one line that says what to type instead, exit code 2, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tunix_rt
from tests.conftest import config_of
from tunix_rt import __main__ as command_line
from tunix_rt import hints
from tunix_rt.errors import ConfigError, InputError
from tunix_rt.hints import say_folders
from tunix_rt.tracking.stores._mlflow_uri import ui_command

ANSWERS = {
    "optimizer.lr=1e-3": "optimizer.lr: unknown key; did you mean 'learning_rate'?",
    "lr=1e-3": "lr: unknown key; did you mean 'optimizer.learning_rate'?",
    "learning_rat=1": "learning_rat: unknown key; did you mean 'optimizer.learning_rate'?",
    "max_steps=10": "max_steps: unknown key; did you mean 'training.max_steps'?",
    "precision=bf16": "precision: unknown key; did you mean 'backend.precision'?",
    "hardware.precision=fp16": "hardware.precision: unknown key; did you mean 'backend.precision'?",
    "dataset.source.typ=x": "dataset.source.typ: unknown key; did you mean 'kind'?",
    "+experment=quickstart": "experment: unknown key; did you mean 'experiment'?",
    "trian": "'trian' is neither a command nor an override (key=value); did you mean 'run'?",
    "zzz": "'zzz' is neither a command nor an override (key=value); the commands are ask, ",
    "quickstart": "did you mean +experiment=quickstart?",
    "run quickstart": "'quickstart' is not an override; did you mean +experiment=quickstart?; the form is key=value",
    "--max_steps 10": "--max_steps: no such option (values are given as KEY=VALUE; did you mean 'training.max_steps'?)",
    "--max-steps=10": "--max-steps=10: no such option (values are given as KEY=VALUE; did you mean 'training.max",
    "runs --sortt accuracy": "--sortt: no such option; did you mean '--sort'?; see ",
    "show last --zzz": "--zzz: no such option; see ",
    "rows last 1 2": "2: one word too many; see ",
    "rows last two": "argument step: invalid int value: 'two'; see ",
    "diff last": "the following arguments are required: right; see ",
    "--cfg jbo": "argument --cfg/-c: invalid choice: 'jbo'",
    "-m --cfg job seed=1,2": "only one of --run, -m, --cfg, --info",
    "training.max_steps=1,2": "training.max_steps=1,2: several values are a sweep, which needs -m (a list is [A,B])",
    "optimizer.learning_rate=interval(1e-4,1e-2)": "several values are a sweep, which needs -m",
    "schedule=glob(*)": "schedule=glob(*): several values are a sweep, which needs -m",
    "schedule=glob(x*)": "schedule: glob(x*) matches none of constant, cosine, linear, wsd",
    "-m optimizer.learning_rate=interval(1e-4,1e-2)": "search it with hydra/sweeper=optuna",
    "training.max_steps=1.5": "training.max_steps: got 1.5, expected a valid integer",
    "run.new=yes": 'run.new: got "yes", expected true or false',
    "--cfg job optimizer.lr=3": "optimizer.lr: unknown key",
    "--cfg job seed=-1": "seed: got -1, expected greater than or equal to 0",
    "model=smollm": "model: no 'smollm'; did you mean 'smollm2_135m'? (there are: distilgpt2, ",
    "dataset=jsonl dataset.name=x dataset.source.train=pc.jsonl": "did you mean dataset.source.train.path=pc.jsonl?",
}


@pytest.mark.parametrize(("typed", "answer"), ANSWERS.items(), ids=ANSWERS)
def test_one_line_says_what_was_meant(typed: str, answer: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents: 'unknown key' alone, Hydra's or argparse's own text, and tracebacks."""
    assert command_line.main(typed.split(" ")) == 2
    shown = capsys.readouterr().err
    assert answer in shown
    assert len(shown.splitlines()) == 1, shown
    assert not any(work.iterdir()), "a mistake leaves nothing behind"


@pytest.mark.parametrize("typed", ["+experiment=quickstart -m seed=0,1 --dry-run", "seed=0,1 --dry-run run.root=runs"])
def test_options_stand_anywhere(typed: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents: argparse's 'unrecognized arguments' for what follows an option (facebookresearch/hydra#3053)."""
    assert command_line.main(typed.split(" ")) == 0
    assert "0 of 2 members are finished; nothing was started" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["traces", "predict last", "evaluate last"])
def test_options_of_commands_stand_anywhere(command: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents: `unrecognized arguments: seed=-1`, eight lines of usage, for what follows an option."""
    option = "-n 1" if command == "traces" else "--root elsewhere"
    assert command_line.main(f"{command} generation.temperature=0 {option} seed=-1".split(" ")) == 2
    shown = capsys.readouterr().err
    assert ("seed: got -1" if command == "traces" else "elsewhere: no run there yet") in shown
    assert len(shown.splitlines()) == 1


def test_glob_names_the_choices_of_a_sweep(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["-m", "schedule=glob(*)", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "0 of 4 members" in shown
    assert all(name in shown for name in ("constant", "cosine", "linear", "wsd"))


def test_an_integer_may_be_written_as_people_write_large_ones() -> None:
    config = config_of(["training.max_steps=1e3", "hardware.threads=2.0", "optimizer.learning_rate=1e0"])
    found = (config.training.max_steps, config.hardware.threads, config.optimizer.learning_rate)
    assert (found, [type(value) for value in found]) == ((1000, 2, 1.0), [int, int, float])


def test_the_config_is_shown_without_secrets(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents: `--cfg` and `--info` printing a password that is nowhere else."""
    uri = "tracking.uri=http://me:hunter2pw@host"
    for words in (["--cfg", "job"], ["--cfg", "job", "--resolve"], ["--cfg", "all"], ["--info", "config"]):
        assert command_line.main([uri, *words]) == 0
        shown = capsys.readouterr().out
        assert "uri: http://me:***@host" in shown or "uri: ${oc.env:TUNIX_RT_TRACKING_URI}" in shown, words
        assert "hunter2pw" not in shown, words
    assert command_line.main([uri, "--cfg", "job", "--package", "tracking"]) == 0
    assert capsys.readouterr().out.startswith("# @package tracking\nuri: ${oc.env:TUNIX_RT_TRACKING_URI}\n")


def test_a_string_is_no_list_of_overrides() -> None:
    """Prevents: twelve mistakes, one a letter."""
    with pytest.raises(InputError, match=r"a list of overrides is expected, such as \['backend=torch'\]"):
        tunix_rt.run("quickstart", "backend=torch")
    with pytest.raises(ConfigError, match="did you mean 'torch'"):
        tunix_rt.run("quickstart", ["backend=tourch"])


def test_alone_it_says_what_it_starts_and_where(work: Path, root: Path) -> None:
    """Prevents: a minute of training that nobody announced, and runs that are in a sub-folder nobody thought of."""
    environment = os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "tunix_rt"], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        loaded: list[str] = []
        said: list[str] = []
        for line in process.stderr:
            (loaded if line.startswith("import time:") else said).append(line)
            if len(said) == 2:
                break
        process.kill()
    assert said[0].startswith("running quickstart, about 90 s on 2 CPU cores: ")
    assert said[0].endswith("--help lists the commands, Ctrl-C stops.\n")
    assert said[1] == f"runs go to {work}/runs, prepared data to {work}/data\n"
    assert not any(line.rstrip().endswith((" jax", " torch", " mlflow")) for line in loaded)


def test_where_runs_go_is_said_once(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "runs").mkdir()
    say_folders("runs", "data")
    assert capsys.readouterr().err == ""


def test_a_hint_is_a_command_that_works_as_it_stands(monkeypatch: pytest.MonkeyPatch, work: Path) -> None:
    """Prevents: `mlflow ui …` and `python -m tunix_rt …` told to who typed `uv run`, where neither is on PATH."""
    programs = str(Path(sys.executable).parent)
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setenv("PATH", f"/usr/bin:{programs}")
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    assert hints.tunix_rt("ask", "last", "2 + 2") == "python -m tunix_rt ask last '2 + 2'"
    monkeypatch.setenv("PATH", "/usr/bin")
    assert hints.tunix_rt("runs") == f"{programs}/python -m tunix_rt runs"
    monkeypatch.chdir(Path(programs).parents[1])
    assert ui_command("sqlite:///a.db").startswith(".venv/bin/mlflow ui --backend-store-uri sqlite:///a.db ")
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    assert hints.tunix_rt("runs") == "uv run python -m tunix_rt runs"
    assert ui_command("sqlite:///a.db").startswith("uv run mlflow ui --backend-store-uri sqlite:///a.db ")


def test_outside_the_environment_it_says_how_to_get_in(root: Path, work: Path) -> None:
    """Prevents: `python3 -m tunix_rt runs` ending in 'this is a bug in tunix_rt: please report it'."""
    program = (
        "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
        "from tunix_rt.__main__ import main; sys.exit(main(['runs']))"
    )
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert "is not installed for" in done.stderr and "`uv run " in done.stderr and ".venv/bin/activate" in done.stderr
