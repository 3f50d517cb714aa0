"""`compare` and `diff`: which runs stand on a side, what is said of a difference, and the texts behind it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.comparison.conftest import Toys
from tunix_rt.__main__ import main
from tunix_rt.comparison.compare import Comparison, compared
from tunix_rt.comparison.sides import Side, sides_of
from tunix_rt.errors import InputError
from tunix_rt.files import read_json, write_json, write_jsonl
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.sweep import MemberRecord, SweepFolder

HALF, MORE = [True] * 50 + [False] * 50, [True] * 62 + [False] * 38


def against(left: RunFolder, right: RunFolder, **more: Any) -> Comparison:
    return compared((Side((left,)), Side((right,))), **more)


def said(toys: Toys, left: Sequence[bool], right: Sequence[bool], **more: Any) -> str:
    return against(toys.run("e/left", left), toys.run("e/right", right), **more).sentence()


def test_one_sentence_says_what_can_be_said(toys: Toys) -> None:
    assert said(toys, HALF, MORE) == "better by 12.0 points [4.9, 18.6]"
    assert said(toys, MORE, HALF) == "worse by 12.0 points [4.9, 18.6]"
    assert said(toys, HALF, HALF) == "no evidence of a difference: 0.0 points [-2.7, 2.7]"
    same = "equivalent within 3.0 points: 0.0 points, 90 % interval [-2.3, 2.3]"
    assert said(toys, HALF, HALF, margin=0.03) == same
    assert said(toys, HALF, MORE, margin=0.3) == "better by 12.0 points [4.9, 18.6], equivalent within 30.0 points"
    few = said(toys, [True] * 7 + [False] * 6, [True] * 9 + [False] * 4, margin=0.1)
    assert few == "no evidence of a difference: +15.4 points [-11.9, 38.6]; not worse by more than 10.0 points"
    worse = said(toys, [True] * 9 + [False] * 4, [True] * 7 + [False] * 6, margin=0.1)
    assert worse.endswith("; it may be worse by more than 10.0 points")


def test_numbers_other_than_the_accuracy(toys: Toys) -> None:
    checks = [{"num_checked": 4, "num_wrong": place % 2} for place in range(20)] + [{"num_checked": 0}] * 80
    left = toys.run("e/left", HALF, num_new_tokens=[20 + place % 3 for place in range(100)], step_checks=checks)
    sampled = [[True, True], [True, False]] * 50
    right = toys.run("e/right", MORE, malformed=[False] * 100, step_checks=[{"num_checked": 1, "num_wrong": 0}] * 100)
    tokens = against(left, right, metric="completion_tokens").sentence()
    assert tokens == "lower by 17.99 completion tokens [17.83, 18.15]"
    steps = against(left, right, metric="steps.right")
    assert (steps.estimate.prompts, steps.scores.left_out) == (20, 80)
    assert steps.estimate.difference == pytest.approx(0.125)
    assert against(left, right, metric="scores.exact").sentence() == against(left, right).sentence()
    assert against(left, right, metric="slices.parity.odd").estimate.prompts == 50
    assert against(right, left, metric="num_new_tokens").verdict() == "higher"
    twice = against(toys.run("e/a", sampled), toys.run("e/b", sampled), metric="pass_at.2")
    assert (twice.estimate.left, twice.estimate.exact) == (1, 1), "one yes or no per prompt again"
    assert against(toys.run("e/a", sampled), toys.run("e/b", sampled)).estimate.exact is None
    with pytest.raises(InputError, match=r"metric 'acuracy': no item has it; there are: accuracy, .*num_new_tokens"):
        against(left, right, metric="acuracy")


def test_prompts_without_a_reference_are_not_in_the_accuracy(toys: Toys) -> None:
    reasons = ["no reference"] * 10 + ["same text"] * 90
    left, right = (toys.run(f"e/{name}", answers, reason=reasons) for name, answers in (("l", HALF), ("r", MORE)))
    assert against(left, right).estimate.prompts == 90


def seeds(toys: Toys, name: str, answers: Sequence[bool], steps: int, number: int) -> list[RunFolder]:
    return [
        toys.run(f"e/{name}{seed}", answers, {"seed": seed, "training.seed": seed, "training.max_steps": steps})
        for seed in range(number)
    ]


def test_runs_are_grouped_by_what_differs_but_their_seeds(toys: Toys) -> None:
    seeds(toys, "a", HALF, 10, 3), seeds(toys, "b", MORE, 20, 2)
    names = [[run.path.name for run in side.runs] for side in sides_of(toys.root, ["e"], [])]
    assert names == [["a0", "a1", "a2"], ["b0", "b1"]]
    sides = sides_of(toys.root, ["e/a1", "e/a0"], ["e/b1"])
    assert [[run.path.name for run in side.runs] for side in sides] == [["a1", "a0"], ["b1"]]
    with pytest.raises(InputError, match=r"here are 2 settings:\n  e/a0: training.max_steps=10\n  e/b0: .*=20"):
        sides_of(toys.root, ["e/a0", "e/b0"], ["e/b1"])
    toys.run("e/c", HALF, {"training.max_steps": 30})
    advice = r"e: 3 settings:\n.*\n.*\n  e/c: training.max_steps=30\nname two sides: compare RUN"
    with pytest.raises(InputError, match=advice):
        sides_of(toys.root, ["e"], [])
    with pytest.raises(InputError, match=r"^e/c: all runs are of one setting; name another to compare with$"):
        sides_of(toys.root, ["e/c"], [])
    with pytest.raises(InputError, match="both sides are the same run, e/c"):
        sides_of(toys.root, ["e/c", "e/c"], [])
    with pytest.raises(InputError, match="e/a1: on both sides"):
        sides_of(toys.root, ["e/a0", "e/a1"], ["e/a1"])


def test_a_setting_that_trains_nothing_is_listed_so(toys: Toys) -> None:
    """Prevents: a list of optimizer keys of a run that has no training."""
    rates = {"optimizer.learning_rate": 0.1, "generation.temperature": 0.5}
    toys.run("e/a", HALF, {"training.max_steps": 0} | rates), toys.run("e/b", MORE)
    toys.run("e/c", MORE, {"training.max_steps": 30})
    with pytest.raises(InputError) as caught:
        sides_of(toys.root, ["e"], [])
    assert str(caught.value).splitlines()[1:4] == [
        "  e/a: nothing trained generation.temperature=0.5",
        "  e/b: training.max_steps=10 generation.temperature=None",
        "  e/c: training.max_steps=30 generation.temperature=None",
    ]


def test_a_sweep_is_its_finished_members(toys: Toys) -> None:
    sweep = SweepFolder(toys.root / "e" / "sweep-abc")
    write_json(sweep.path / "sweep.json", {"varying": ["seed"]})
    for run in [*seeds(toys, "a", HALF, 10, 2), *seeds(toys, "b", MORE, 20, 2)]:
        sweep.write(MemberRecord((f"x={run.path.name}",), "finished", str(run.path)))
    sweep.write(MemberRecord(("x=broken",), "failed", None, "broke"))
    for word in ("e/sweep-abc", "sweep-a", str(sweep.path)):
        assert sorted(len(side.runs) for side in sides_of(toys.root, [word], [])) == [2, 2]


def test_the_same_seed_again_is_no_further_evidence(toys: Toys) -> None:
    """Prevents: `run.new=true` ten times giving a narrow interval."""
    (first, _), others = seeds(toys, "a", HALF, 10, 2), seeds(toys, "b", MORE, 20, 2)
    again = toys.run("e/again", HALF, {"seed": 0, "training.seed": 0, "training.max_steps": 10, "run.new": True})
    sides = sides_of(toys.root, [first.name, "e/a1", again.name], [run.name for run in others])
    assert [run.path.name for run in sides[0].runs] == ["a0", "a1"]
    assert "e/again is left out: config and seeds of another run of its side" in list(compared(sides).cautions())


def test_seeds_are_told_apart_from_the_change(toys: Toys) -> None:
    """Prevents: a difference that each seed makes anew passing for that of the change."""
    accuracies = {"a": (90, 50, 70), "b": (95, 60, 91)}
    for name, some in accuracies.items():
        for seed, k in enumerate(some):
            config = {"seed": seed, "training.seed": seed, "training.max_steps": len(some) + ord(name)}
            toys.run(f"e/{name}{seed}", [True] * k + [False] * (100 - k), config)
    assert against(RunFolder(toys.root / "e/a1"), RunFolder(toys.root / "e/b1")).verdict() == "better"
    found = compared(sides_of(toys.root, ["e"], []))
    assert found.verdict() == "no evidence" and found.estimate.seeds_known
    assert "few seeds (3 and 3 runs): their effect is hardly known, hence a wide interval" in list(found.cautions())
    one = compared(sides_of(toys.root, ["e/a0"], ["e/b0", "e/b1", "e/b2"]))
    assert any("taken to vary with its seed as the other side does" in note for note in one.cautions())
    sampled = [toys.run(f"g/{seed}", HALF, {"generation.seed": seed}) for seed in range(2)]
    other = compared((Side(tuple(sampled)), Side((toys.run("g/x", MORE),))))
    assert any("one training with several generation seeds" in note for note in other.cautions())


def test_slices_are_corrected_for_their_number(toys: Toys) -> None:
    found = against(toys.run("e/left", HALF), toys.run("e/right", MORE)).slices()
    assert [(part.name, part.value, part.prompts) for part in found] == [("parity", "even", 50), ("parity", "odd", 50)]
    assert [part.estimate.p_value() for part in found] == [pytest.approx(1 / 32)] * 2
    assert [part.p_holm for part in found] == [pytest.approx(1 / 16)] * 2


def test_flips_are_shown_as_text_and_never_as_markup(toys: Toys, capsys: pytest.CaptureFixture[str]) -> None:
    toys.run("e/left", [True, False, True, False]), toys.run("e/right", [False, True, True, True])
    assert main(["compare", "e/left", "e/right", "--flips", "1"]) == 0
    shown = capsys.readouterr().out
    *lines, command = shown.splitlines()
    assert max(map(len, lines)) <= 80 and command.endswith("report e/right --against e/left")
    assert shown.index("harmful flips: 1") < shown.index("before     so it is [bold]0[/bold]")
    assert shown.index("now        so it is [bold]2[/bold]") > shown.index("beneficial flips: 2")
    assert "id0: 100.0 % → 0.0 %\n  prompt     0+0=\n  reference  0" in shown
    assert "id3" not in shown, "one of each was asked for"
    assert main(["compare", "e/left", "e/right", "--json"]) == 0
    everything = json.loads(capsys.readouterr().out)
    assert [flip["id"] for flip in everything["beneficial"]] == ["id1", "id3"]
    assert everything["harmful"][0]["completions"][0] == "so it is [bold]0[/bold]\nAnswer: 0"
    assert everything["verdict"] == "no evidence" and everything["p_value"] == 1


def test_runs_that_cannot_be_compared_are_a_mistake(toys: Toys, capsys: pytest.CaptureFixture[str]) -> None:
    toys.run("e/left", HALF), toys.run("e/right", MORE, first=50)
    assert main(["compare", "e/left", "e/right"]) == 2
    assert "(--common compares those)" in capsys.readouterr().err
    assert main(["compare", "e/left", "e/right", "--common"]) == 0
    assert "compared on 50 common answers; left out: 50, 50" in " ".join(capsys.readouterr().out.split())
    assert main(["compare", "e/left", "e/right", "--margin", "-1"]) == 2
    assert main(["compare", "e/left", "e/right", "--margin", "abc"]) == 2
    shown = capsys.readouterr().err
    assert "'abc': expected a number above 0" in shown and "_margin" not in shown


def test_diff_begins_with_five_lines(toys: Toys, capsys: pytest.CaptureFixture[str]) -> None:
    toys.run("e/left", HALF), toys.run("e/right", MORE, {"training.max_steps": 20, "seed": 1, "training.seed": 1})
    assert main(["diff", "e/left", "e/right"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        "changed   seed: 0 → 1; training.max_steps: 10 → 20",
        "accuracy  50.0 % → 62.0 %: +12.0 points [+4.9, +18.6]",
        "verdict   better by 12.0 points [4.9, 18.6]",
        "data      the same",
        "code      the same",
    ]
    assert lines[-1].endswith("tunix_rt diff e/left e/right --all")
    write_json(Path("runs/e/right/environment.json"), {"git": {"commit": "b" * 40}, "source_sha256": "other"})
    for name in ("left", "right"):
        file = Path("runs/e") / name / "data.json"
        splits = {split: {"sha256": name} for split in ("train", "test")}
        write_json(file, read_json(file) | {"splits": splits, "digest": name})
    assert main(["diff", "e/left", "e/right"]) == 0
    assert capsys.readouterr().out.splitlines()[3:5] == [
        "data      the same questions; other train",
        f"code      other source of tunix_rt, commit (absent) → {'b' * 9}",
    ]
    write_json(Path("runs/e/right/stages.json"), {})
    assert main(["diff", "e/left", "e/right", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert summary["verdict"].startswith(
        "cannot be compared: e/right: its stages.json does not say that it was evaluated"
    )


def test_a_damaged_record_is_named(toys: Toys, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents: a traceback, or 'none of them is wrong', of a record that can be read and is none."""
    left, right = toys.run("e/left", HALF), toys.run("e/right", MORE)
    write_json(left.metrics, {"accuracy": 3})
    assert main(["diff", "e/left", "e/right"]) == 2
    assert "e/left/metrics.json: accuracy is 3, expected a rate" in capsys.readouterr().err
    lines = [json.loads(line) for line in right.items.read_text("utf-8").splitlines()]
    del lines[1]["reason"]
    write_jsonl(right.items, lines)
    for words in (["compare", "e/left", "e/right"], ["show", "e/right", "--wrong"]):
        assert main(words) == 2
        assert "e/right/items.jsonl:2: not a verdict on an answer: reason is missing" in capsys.readouterr().err
