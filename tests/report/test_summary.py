"""The table at the end of a run."""

from __future__ import annotations

import pytest

from tests.report.conftest import MakeRun, four, prediction
from tunix_rt.files import read_json, read_jsonl, write_json, write_jsonl
from tunix_rt.report.html.page import write_page
from tunix_rt.report.markdown import write_report
from tunix_rt.report.summary import summary
from tunix_rt.report.tables import write_tables

HOSTILE = ("\x1b]0;owned\x07", "two\nlines", "-x", "a question")


def test_every_number_a_person_looks_for(make_run: MakeRun) -> None:
    run = make_run(baseline=[prediction(p.id, None, (), finish_reason="length") for p in four()])
    rows = dict(summary(run, "mlflow ui"))
    assert rows["accuracy"] == "75.0 %  [30.1, 95.4]  (3 of 4)"
    assert rows["before training"].startswith("0.0 %") and rows["before training"].endswith("(0 of 4)")
    assert rows["stopped by itself"].startswith("100.0 %")
    assert rows["malformed"].startswith("0.0 %")
    assert rows["training loss"] == "3.0000 → 0.0002"
    assert rows["validation loss"] == "0.0002"
    assert rows["training"] == "60 steps, 66,000 tokens, 33,000 tokens/s"
    assert rows["left out of the data"] == "5 invalid, 3 duplicate, 7 overlong, 2 overlaps allowed"
    assert rows["time"] == "prepare 2.5 s, train 49.0 s"
    assert rows["look at it"] == "mlflow ui" and "in a browser" not in rows
    write_page(run)
    assert dict(summary(run, None))["in a browser"].endswith("quickstart/0123456789ab/report.html")
    assert rows["ask it"].endswith("python -m tunix_rt ask quickstart/0123456789ab '3*4='")


def test_a_run_without_baseline_and_tracking(make_run: MakeRun) -> None:
    """Prevents: lines about what was never asked for."""
    rows = dict(summary(make_run(), None))
    assert "before training" not in rows and "look at it" not in rows


def test_a_run_without_any_reference_answer_has_its_tables_and_its_report(make_run: MakeRun) -> None:
    """All completions call tools: there is nothing to compare with, and the run ends as any other."""
    calls = [prediction(one.id, "<call>", reference="") for one in four()]
    run = make_run(calls, baseline=calls)
    assert dict(summary(run, None))["accuracy"] == "no reference answer to compare with"
    write_tables(run.path)
    write_report(run.path, None)
    report = run.report.read_text("utf-8")
    assert "No completion has a reference answer" in report and "4 prompts have no reference answer" in report


def test_what_is_missing_and_where_to_go_on(make_run: MakeRun) -> None:
    """Prevents: answers that are missing, of which only the report speaks; an address that nobody finds."""
    run = make_run()
    write_json(run.metrics, read_json(run.metrics) | {"missing": 7})
    rows = dict(summary(run, "mlflow ui", ["http://127.0.0.1:5000/#/experiments/1"]))
    assert rows["missing answers"] == "7, of which no rate knows"
    assert rows["its page there"] == "http://127.0.0.1:5000/#/experiments/1" and "in a browser" not in rows
    assert rows["wrong answers"].endswith("python -m tunix_rt show quickstart/0123456789ab --wrong")
    run.page.write_text("<html>")
    assert dict(summary(run, None))["in a browser"] == (run.path / "report.html").absolute().as_uri()
    assert "missing answers" not in dict(summary(make_run(identity="whole"), None))


def test_a_run_in_another_folder_is_named_with_it(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    monkeypatch.chdir(run.root)
    assert dict(summary(run, None))["ask it"].endswith("ask quickstart/0123456789ab '3*4=' --root .")


def test_a_question_is_quoted_for_the_shell(make_run: MakeRun) -> None:
    """Prevents: `4 * 3` expanded, or a command in a prompt run, by the shell it is pasted into."""
    run = make_run()
    items = [item | {"prompt": "it's $(rm -r .)"} for _, item in read_jsonl(run.items)]
    write_jsonl(run.items, items)
    assert dict(summary(run, None))["ask it"].endswith(""" 'it'"'"'s $(rm -r .)'""")


def test_a_prompt_that_steers_the_terminal_is_not_proposed(make_run: MakeRun) -> None:
    """Prevents: escape sequences of a data file in the 'ask it' line."""
    run = make_run()
    items = [item | {"prompt": prompt} for (_, item), prompt in zip(read_jsonl(run.items), HOSTILE, strict=True)]
    write_jsonl(run.items, items)
    assert dict(summary(run, None))["ask it"].endswith(" quickstart/0123456789ab 'a question'")
    write_jsonl(run.items, items[:3])
    assert dict(summary(run, None))["ask it"].endswith(" quickstart/0123456789ab '…'")


def test_a_loss_that_says_nothing_is_left_out_and_none_is_minus_zero(make_run: MakeRun) -> None:
    run = make_run()
    write_jsonl(run.metrics_log, [{"step": step, "train/loss": loss} for step, loss in ((1, -1e-17), (2, 0.5))])
    assert dict(summary(run, None))["training loss"] == "0.0000 → 0.5000"
    write_jsonl(run.metrics_log, [{"step": 1, "train/loss": 0.1, "rollout/reward": 0.5, "rollout/truncated": 0.25}])
    rows = dict(summary(run, None))
    assert "training loss" not in rows and rows["reward"] == "0.5000 → 0.5000"
    assert rows["cut off"] == "25 % → 25 % of the answers it learned from"


def test_a_run_whose_sibling_did_the_training_shows_its_losses(make_run: MakeRun) -> None:
    """Prevents: an empty `plots/training.csv`, and no loss at the end of a run that only evaluates anew."""
    run = make_run(identity="again", trained_by=make_run())
    rows = dict(summary(run, None))
    assert (rows["training loss"], rows["validation loss"]) == ("3.0000 → 0.0002", "0.0002")
    write_tables(run.path)
    assert len((run.path / "plots" / "training.csv").read_text("utf-8").splitlines()) == 61
