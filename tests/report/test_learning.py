"""What one sees of a run that learned from rewards or preferences: report, figures, tables, page, `show`, `watch`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.report.made import HOSTILE
from tests.report.made_rollouts import hostile_rollouts, learned_run, preferred_run
from tests.report.test_page import Elements
from tunix_rt.__main__ import main
from tunix_rt.files import read_json
from tunix_rt.report.html.embed import SCRIPTS, unpacked
from tunix_rt.report.html.page import page
from tunix_rt.report.html.rollouts import MOST_PROMPTS, MOST_STEPS
from tunix_rt.report.live import RunView
from tunix_rt.report.rollouts import groups_at, spaced
from tunix_rt.runs.folder import RunFolder
from tunix_rt.stages.report import report

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A reported run of forty steps; at each, fourteen prompts have four answers."""
    run = learned_run(tmp_path_factory.mktemp("learned"), steps=40, prompts=14, samples=4)
    report(run)
    return run


@pytest.fixture(scope="module")
def preferred(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A reported run that learned from pairs."""
    run = preferred_run(tmp_path_factory.mktemp("preferred"))
    report(run)
    return run


def lines_of(run: RunFolder) -> list[dict[str, float]]:
    """What the log says of the rollouts of each step."""
    lines = map(json.loads, run.metrics_log.read_text().splitlines())
    return [line for line in lines if "rollout/reward" in line]


def test_the_report_has_the_curves_and_answers_side_by_side(learned: RunFolder) -> None:
    text = learned.report.read_text("utf-8")
    section = text.partition("## Learning\n")[2].partition("\n## ")[0]
    first, last = lines_of(learned)[0], lines_of(learned)[-1]
    reward, low, high = (first[f"rollout/reward{end}"] for end in ("", "_low", "_high"))
    assert f"| reward | {reward:.4g} [{low:.3g}, {high:.3g}] (step 1) → {last['rollout/reward']:.4g} [" in section
    assert "| of it, answer (not weighted) |" in section and "largest gap between sampler and trainer" in section
    assert "|  | step 1 | step 20 | step 40 |" in section
    (best,) = (line for line in section.splitlines() if line.startswith("| best |"))
    (worst,) = (line for line in section.splitlines() if line.startswith("| worst, reward |"))
    group = groups_at(learned, 1)[0]
    assert group.best.completion.replace("\n", " ↵ ") in best and f"{group.worst.reward:.4g} (answer 0" in worst
    assert "![reward](figures/reward.png)" in section and (learned.path / "figures/reward.png").exists()


def test_the_report_of_preferences(preferred: RunFolder) -> None:
    text = preferred.report.read_text("utf-8")
    assert "| share of pairs in which the chosen answer is preferred | 0.525 (step 1) → 1 (step 30) |" in text
    assert "| margin between chosen and rejected | 0.105 (step 1) → 3.15 (step 30) |" in text
    assert "![preferences](figures/preferences.png)" in text and (preferred.path / "figures/preferences.png").exists()
    assert {chart["id"] for chart in unpacked(page(preferred), "charts")} >= {"preferred", "implicit", "loss"}


def test_tables_for_other_programs(learned: RunFolder, preferred: RunFolder) -> None:
    with (learned.path / "plots/rollouts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 41)) and rows[0]["kl"] == ""
    assert float(rows[0]["reward_low"]) < float(rows[0]["reward"]) < float(rows[0]["reward_high"])
    assert len((preferred.path / "plots/preferences.csv").read_text().splitlines()) == 31
    assert (preferred.path / "plots/rollouts.csv").read_text().count("\n") == 1


def test_the_page_has_groups_side_by_side(learned: RunFolder) -> None:
    text = page(learned)
    data = unpacked(text, "rollouts")
    assert data["total"] == 40 and len(data["curve"]) == 40 and len(data["curve"][0]) == 4
    steps = [step["step"] for step in data["steps"]]
    assert len(steps) == MOST_STEPS and (steps[0], steps[-1]) == (1, 40)
    for step in data["steps"]:
        assert step["prompts"] == 14 and len(step["groups"]) == MOST_PROMPTS
        assert [group["spread"] for group in step["groups"]] == sorted(
            (g["spread"] for g in step["groups"]), reverse=True
        )
        for group in step["groups"]:
            rewards = [sample["reward"] for sample in group["samples"]]
            assert rewards == sorted(rewards, reverse=True) and sum(s["count"] for s in group["samples"]) == 4
    charts = [chart["id"] for chart in unpacked(text, "charts")]
    assert charts[:4] == ["rates", "reward", "components", "shares"]


def test_hostile_rollouts_stay_text(tmp_path: Path, learned: RunFolder) -> None:
    text = page(hostile_rollouts(tmp_path))
    plain, attacked = Elements(page(learned)), Elements(text)
    assert {tag for tag, _ in attacked.found} == {tag for tag, _ in plain.found}
    assert sum(tag == "script" for tag, _ in attacked.found) == len(SCRIPTS) + 5
    shown = unpacked(text, "rollouts")["steps"][0]["groups"]
    assert {group["prompt"] for group in shown} <= set(HOSTILE)
    assert all(group["samples"][0]["completion"] == group["prompt"] for group in shown)


def test_a_run_without_rollouts_has_no_such_section(preferred: RunFolder) -> None:
    text = page(preferred)
    assert 'id="rollouts"' not in text and 'id="data-rollouts"' not in text


def test_show_prints_the_answers_of_a_step(learned: RunFolder, capsys: Capture) -> None:
    words = ["show", "made/rl", "--root", str(learned.root)]
    assert main([*words, "--rollouts", "3", "--predictions", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    group = groups_at(learned, 3)[0]
    assert lines[0] == "made/rl, step 3: 1 of 14 prompts, those whose rewards differ most first"
    assert lines[2].startswith(f"{group.best.id}: 4 answers, rewards from {group.worst.reward:.4g} to ")
    assert sum(line.startswith("  best ") for line in lines) == 1 and sum("worst" in line for line in lines) == 1
    assert main([*words, "--rollouts", "--json"]) == 0
    assert {one["id"].split("-")[1] for one in json.loads(capsys.readouterr().out)} == {"40"}
    assert main([*words, "--rollouts", "41"]) == 2
    assert "no rollouts of step 41; there are 40, such as 1, 6, 12, " in capsys.readouterr().err
    assert main([*words, "--rollouts", "3", "--id", "nobody"]) == 2
    assert "no prompt has an id that begins with 'nobody'" in capsys.readouterr().err


def test_watch_says_the_reward(learned: RunFolder, preferred: RunFolder) -> None:
    screen = RunView(learned).screen(60)
    assert screen[3] == "reward" and screen[-3].lstrip().startswith("step 1") and "40" in screen[-3]
    assert "preferred" in RunView(preferred).screen(60)


def test_steps_are_spaced_evenly() -> None:
    assert spaced(range(1, 101), 4) == [1, 34, 67, 100]
    assert spaced([5, 9], 4) == [5, 9] and spaced([], 4) == []


def test_the_made_run_is_like_a_real_one(learned: RunFolder) -> None:
    """The reward of a line of the log is the mean of those in the file of its step."""
    assert read_json(learned.status_file)["state"] == "finished"
    rewards = [one.reward for group in groups_at(learned, 40) for one in group.rollouts]
    line = lines_of(learned)[-1]
    assert line["rollout/reward"] == pytest.approx(sum(rewards) / len(rewards))
