"""Optuna: toy trials with pruning, killed on the way, go on where they were; the space is what was declared."""

from __future__ import annotations

import signal
import sqlite3
from pathlib import Path

import pytest
from optuna import get_all_study_names, load_study

from tests.sweeps.conftest import QUICK, Shell
from tunix_rt.errors import ConfigError
from tunix_rt.runs.sweep import SweepFolder
from tunix_rt.sweeps import plots
from tunix_rt.sweeps.space import space_of
from tunix_rt.sweeps.study import PrunerSettings, SamplerSettings, Study, StudySettings

SEARCH = (
    "+experiment=sweep_optuna",
    *QUICK,
    "training.max_steps=16",
    "training.evaluate_every=2",
    "schedule.warmup_steps=range(1,5)",
    "hydra.sweeper.n_trials=10",
    "hydra.sweeper.sampler.n_startup_trials=5",
    "hydra.sweeper.pruner.n_startup_trials=3",
)


def states(shell: Shell) -> list[str]:
    with sqlite3.connect(shell.sweep("sweep_optuna") / "study.db") as store:
        found = [state for (state,) in store.execute("select state from trials order by number")]
    store.close()
    return found


@pytest.mark.slow
@pytest.mark.acceptance
@pytest.mark.timeout(900)
def test_trials_killed_on_the_way(shell: Shell) -> None:
    with shell.sweeping(*SEARCH) as sweep:
        sweep.until(lambda: sweep.output().count(": finished") >= 4)
        sweep.process.send_signal(signal.SIGKILL)
        assert sweep.process.wait(60) == -signal.SIGKILL
    before = states(shell)
    assert before.count("COMPLETE") >= 3
    done = shell.types(*SEARCH)
    assert done.code == 0, done.err
    after = states(shell)
    assert after.count("COMPLETE") + after.count("PRUNED") == 10
    assert after.count("PRUNED") > 0
    kept = before.count("COMPLETE") + before.count("PRUNED")
    assert done.err.count("\nmember ") + done.err.startswith("member ") <= 10 - kept
    ranking = shell.ranking("sweep_optuna")
    assert {line["state"] for line in ranking} == {"finished", "pruned"}
    assert "eval/loss" in next(line["reason"] for line in ranking if line["state"] == "pruned")
    results = {line["value"] for line in ranking if line["state"] == "finished"}
    assert (shell.sweep("sweep_optuna") / "parallel_coordinates.png").exists() == (len(results) > 1)

    again = shell.types(*SEARCH)
    assert "10 of 10 trials are done and not run again" in again.err
    assert states(shell) == after
    assert "10 of 10 trials are done; nothing was started" in shell.types(*SEARCH, "--dry-run").out


def study_of(folder: Path, trials: int) -> Study:
    """A study of a value that only `a` decides, after so many trials."""
    pruner = PrunerSettings(metric="eval/loss", direction="minimize", n_startup_trials=1, n_warmup_steps=0)
    sampler = SamplerSettings(n_startup_trials=4)
    settings = StudySettings(n_trials=20, n_jobs=1, seed=5, sampler=sampler, pruner=pruner)
    space = space_of({"a": "interval(0, 1)", "b": "interval(0, 1)"}, [])
    study = Study(SweepFolder(folder), settings, space, "maximize")
    for _ in range(trials):
        candidate = study.ask(None)
        study.tell(candidate.trial.number, -((candidate.trial.params["a"] - 0.3) ** 2), "COMPLETE")
    return study


@pytest.mark.slow
def test_a_study_opened_anew_proposes_what_one_in_one_go_does(tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = study_of(tmp_path / "whole", 14)
    study_of(tmp_path / "parts", 6)
    parts = study_of(tmp_path / "parts", 8)
    assert [trial.params for trial in parts.trials()] == [trial.params for trial in whole.trials()]


def test_importances_tell_what_decides(tmp_path: Path) -> None:
    assert study_of(tmp_path, 1).importances() == {}
    shares = study_of(tmp_path, 15).importances()
    assert shares["a"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)
    plots.importances(shares, "accuracy", tmp_path / "importances.png")
    assert (tmp_path / "importances.png").stat().st_size > 5_000


def test_failed_trials_are_repeated_once(tmp_path: Path) -> None:
    study = study_of(tmp_path, 2)
    failed = study.ask(None)
    study.tell(failed.trial.number, None, "FAIL")
    assert study.to_repeat() == [failed.trial.params]
    again = study.ask(study.to_repeat()[0])
    assert (again.trial.params, again.key) == (failed.trial.params, failed.key)
    study.tell(again.trial.number, 0.5, "COMPLETE")
    assert study.to_repeat() == []
    assert study.num_done() == 3


def test_a_trial_torn_while_it_was_proposed_changes_nothing(tmp_path: Path) -> None:
    for name in ("whole", "torn"):
        (tmp_path / name).mkdir()
    whole = study_of(tmp_path / "whole", 8)
    study_of(tmp_path / "torn", 5)
    storage = f"sqlite:///{tmp_path}/torn/study.db"
    load_study(study_name=get_all_study_names(storage)[0], storage=storage).ask()
    torn = study_of(tmp_path / "torn", 3)
    (left,) = torn.trials("RUNNING")
    assert not torn.is_whole(left) and torn.num_done() == 8
    torn.tell(left.number, None, "FAIL")
    assert torn.to_repeat() == []
    whole_params = [trial.params for trial in whole.trials()]
    assert [trial.params for trial in torn.trials("COMPLETE")][:6] == whole_params[:6]


def test_a_space_in_hydras_words() -> None:
    params = {"a": "interval(0, 1)", "b": "tag(log, interval(1e-4, 1e-2))", "c": "range(1, 10, 2)", "d": "choice(x, y)"}
    space = space_of(params, ["++e=int(interval(1, 4))", "seed=3", "++a=interval(0, 0.5)"])
    shown = {key: str(value) for key, value in space.searched.items()}
    assert shown == {
        "a": "FloatDistribution(high=0.5, log=False, low=0.0, step=None)",
        "b": "FloatDistribution(high=0.01, log=True, low=0.0001, step=None)",
        "c": "IntDistribution(high=9, log=False, low=1, step=2)",
        "d": "CategoricalDistribution(choices=('x', 'y'))",
        "e": "IntDistribution(high=4, log=False, low=1, step=1)",
    }
    values = {"a": 0.25, "b": 0.001, "c": 3, "d": "y", "e": 2}
    assert space.overrides(values) == ["seed=3", "++a=0.25", "b=0.001", "c=3", "d=y", "++e=2"]


def test_a_wrong_space_is_named() -> None:
    with pytest.raises(ConfigError, match="nothing to search"):
        space_of({}, ["seed=3"])
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.params\.a: tag\(log, interval\(0, 1\)\)"):
        space_of({"a": "tag(log, interval(0, 1))"}, [])


def test_a_wrong_setting_of_the_sweeper_is_named(shell: Shell) -> None:
    done = shell.types("+experiment=sweep_optuna", "hydra.sweeper.n_trials=0", "hydra.sweeper.pruner.direction=up")
    assert done.code == 2
    assert "hydra.sweeper.n_trials: got 0, expected greater than 0" in done.err
    assert "hydra.sweeper.pruner.direction: got \"up\", expected 'minimize' or 'maximize'" in done.err
