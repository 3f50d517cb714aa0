"""Gates: passed or not with its exit code, in one line; declared, typed, and as DVC starts them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pipelines.gate import gate as dvc_gate
from tests.comparison.conftest import Toys
from tests.conftest import TOY
from tunix_rt.__main__ import guarded, main
from tunix_rt.config.load import compose
from tunix_rt.errors import ModelError
from tunix_rt.files import to_json, write_text
from tunix_rt.records.gate import check_gates, declared_gate
from tunix_rt.tracking.registry import ModelStore

GOOD, BAD = [True] * 95 + [False] * 5, [True] * 80 + [False] * 20


def test_a_gate_passes_or_fails_with_one_line(toys: Toys, capsys: pytest.CaptureFixture[str]) -> None:
    toys.run("e/old", GOOD), toys.run("e/same", GOOD), toys.run("e/bad", BAD)
    words = ["against=e/old", "must_not_drop_by=0.05"]
    assert main(["gate", "e/same", *words]) == 0
    assert main(["gate", "e/bad", *words]) == 5
    passed, failed = capsys.readouterr().out.splitlines()
    assert passed.startswith("gate passed: accuracy 95.0 % of e/same, 95.0 % of e/old: 0.0 points, with 95 % conf")
    assert failed.startswith("gate FAILED: accuracy 80.0 % of e/bad, 95.0 % of e/old: -15.0 points")
    assert "too few" not in failed, "it is shown to be worse"
    assert main(["gate", "e/bad", *words, "must_not_drop_by=0.3", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["gates"][0]
    assert facts["worst"] == pytest.approx(15 / 102 + 1.645 * ((17 / 102 - (15 / 102) ** 2) / 102) ** 0.5, abs=1e-3)


def test_thirteen_right_answers_do_not_pass_a_gate_of_a_point(toys: Toys, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents: passing for want of evidence. By hand: two imaginary flips in 15 prompts vary by 2 / 15, and
    (1.645 + 0.842)² · 13 · (2 / 15²) / 0.01² is 7,144.3."""
    toys.run("e/old", [True] * 13), toys.run("e/new", [True] * 13)
    assert main(["gate", "e/new", "against=e/old", "must_not_drop_by=0.01"]) == 5
    few = "not shown to be worse, but 13 prompts are too few: an equal run passes with 7,145 four times in five"
    assert few in capsys.readouterr().out


def test_less_of_what_should_be_small_is_no_drop(toys: Toys) -> None:
    malformed = [True] * 30 + [False] * 70
    toys.run("e/old", GOOD, malformed=malformed), toys.run("e/new", GOOD)
    words = ["metric=malformed_rate", "must_not_drop_by=0.05"]
    assert main(["gate", "e/new", "against=e/old", *words]) == 0
    assert main(["gate", "e/old", "against=e/new", *words]) == 5


def test_a_gate_knows_what_is_better(toys: Toys, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents: more malformed answers passing, since the item's own key has no direction."""
    old, worse = toys.run("e/old", GOOD), toys.run("e/new", GOOD, malformed=[True] * 30 + [False] * 70)
    words = [f"against={old.name}", "must_not_drop_by=0.05"]
    assert main(["gate", worse.name, *words, "metric=malformed"]) == 5
    assert main(["gate", old.name, f"against={worse.name}", "must_not_drop_by=0.05", "metric=malformed"]) == 0
    capsys.readouterr()
    assert main(["gate", worse.name, *words, "metric=completion_tokens"]) == 2
    assert "gate on completion_tokens.mean: neither more nor less of it is better" in capsys.readouterr().err


def test_what_cannot_be_compared_is_a_mistake_and_not_a_failed_gate(
    toys: Toys, capsys: pytest.CaptureFixture[str]
) -> None:
    toys.run("e/old", GOOD), toys.run("e/other", GOOD, first=7)
    assert main(["gate", "e/other", "against=e/old", "must_not_drop_by=0.05"]) == 2
    assert main(["gate", "e/old", "agianst=x", "must_not_drop_by=much"]) == 2
    assert main(["gate", "e/old"]) == 2
    assert main(["gate", "e/old", "against=e/old", "must_not_drop_by=inf"]) == 2
    shown = capsys.readouterr().err
    assert "were not asked the same" in shown and "did you mean 'against'?" in shown and "declares no gate" in shown
    assert "gate.must_not_drop_by: got inf, expected a finite number" in shown


def test_a_run_declares_its_gates(toys: Toys) -> None:
    gates = [{"against": "e/old", "must_not_drop_by": 0.05}]
    toys.run("e/old", GOOD), toys.run("e/bad", BAD, {"run.gates": gates})
    assert main(["gate", "e/bad"]) == 5


def test_dvc_starts_one_for_each(toys: Toys, capsys: pytest.CaptureFixture[str]) -> None:
    declared = "run.gates=[{against: e/old, must_not_drop_by: 0.05}]"
    mapping = compose([*TOY, declared])
    write_text(Path("params.yaml"), OmegaConf.to_yaml(OmegaConf.create(mapping)))
    toys.run("e/old", GOOD), toys.run("dvc", BAD)
    (gate,) = mapping["run"]["gates"]
    words = [word for key, value in gate.items() for word in (f"--{key}", str(value))]
    assert guarded(lambda: dvc_gate(words), debug=False) == 5
    assert "of runs/dvc, 95.0 % of e/old" in capsys.readouterr().out


class Registry(ModelStore):
    """A store with one registered model, whose run is not here."""

    def pinned(self, model: str) -> str:
        assert model == "models:/sums@best"
        return "models:/sums/3"

    def tags(self, model: str) -> dict[str, str]:
        return {"tunix_rt.run": "far/away"}

    def fetch_records(self, model: str, names: object, folder: Path) -> None:
        there = Path("elsewhere/far/away")
        items = [json.loads(line) for line in (there / "items.jsonl").read_text().splitlines()]
        table = {"columns": list(items[0]), "data": [list(item.values()) for item in items]}
        write_text(folder / "predictions.json", to_json(table))
        for name in ("config.yaml", "data.json"):
            write_text(folder / name, (there / name).read_text())


def test_the_verdicts_of_a_registered_model_are_fetched(toys: Toys) -> None:
    Toys(Path("elsewhere")).run("far/away", GOOD)
    run, gate = toys.run("e/bad", BAD), declared_gate(["against=models:/sums@best", "must_not_drop_by=0.05"])
    for _ in range(2):
        (result,) = check_gates(run, [gate], toys.root, lambda: Registry(""))
        assert not result.passed and result.line.endswith("5.0 points are accepted")
    with pytest.raises(ModelError, match="expected models:/NAME@ALIAS"):
        check_gates(run, [declared_gate(["against=models:x", "must_not_drop_by=0"])], toys.root, lambda: Registry(""))
