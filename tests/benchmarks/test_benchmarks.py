"""The benchmarks at toy size: they run from the command line, and ours and theirs do the same work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import generation, quantize, training
from benchmarks.workload import QUICK


def results_of(benchmark: str, folder: Path, root: Path, *words: str) -> Any:
    """The JSON of one run as a user types it, in an empty directory."""
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", "--rounds", "1", "--json", "made.json", *words]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    made = json.loads((folder / "made.json").read_text("utf-8"))
    assert made["benchmark"] == benchmark
    assert set(made["versions"]) == {"tunix_rt", "jax", "torch", "transformers", "trl"}
    return made


def check_contest(made: Any) -> dict[str, Any]:
    """Everyone's measured lap, after the checks that hold for every race."""
    contestants = made["contestants"]
    peers = set(contestants) - {"jax", "torch"}
    (hardest,) = set(contestants) - set(made["ratios"])
    assert hardest == max(peers, key=lambda name: rate(contestants[name]["laps"][0]))
    laps = {name: result["laps"][0] for name, result in contestants.items()}
    for backend, ratio in made["ratios"].items():
        assert ratio["median"] == pytest.approx(rate(laps[backend]) / rate(laps[hardest]))
        assert ratio["lowest"] == ratio["median"] == ratio["highest"], "one round has no spread"
    for name, result in contestants.items():
        assert result["warm_up"]["amount"] == laps[name]["amount"], "the warm-up is the same work"
        assert laps[name]["cpu_seconds"] > 0
        assert laps[name]["wall_seconds"] > 0
        assert laps[name]["peak_bytes"] > 2**26
    return laps


def rate(lap: dict[str, Any]) -> float:
    return float(lap["amount"] / lap["cpu_seconds"])


ALL = pytest.param((), marks=(pytest.mark.acceptance, pytest.mark.slow), id="all")
"""Every contestant; in the default tier, torch's and one peer."""


@pytest.mark.parametrize("words", [pytest.param(("--backends", "torch", "--peers", "plain loop"), id="torch"), ALL])
def test_training_of_ours_and_theirs_sees_the_same_real_tokens(work: Path, root: Path, words: tuple[str, ...]) -> None:
    """A ratio of rates would be worthless if padding were counted on one side, or other traces trained on."""
    laps = check_contest(results_of("training", work, root, "--quick", *words))
    assert set(laps) == ({"torch", "plain loop"} if words else {"jax", "torch", *training.PEERS})
    assert len({lap["amount"] for lap in laps.values()}) == 1 < laps["torch"]["amount"]
    assert {lap["facts"]["updates"] for lap in laps.values()} == {2}
    losses = [lap["facts"]["loss"] for lap in laps.values()]
    assert losses == pytest.approx([losses[0]] * len(losses), rel=0.05), "not the same traces, weights or rule"


ENDLESS = ("--backends", "torch", "--peers", "generate, like lengths", "--endless")


@pytest.mark.parametrize("words", [pytest.param(ENDLESS, id="torch, endless"), ALL])
def test_generation_of_ours_and_theirs_makes_the_same_tokens(work: Path, root: Path, words: tuple[str, ...]) -> None:
    """Greedy answers are equal, so a difference in count would be a prompt left out or a stop missed."""
    laps = check_contest(results_of("generation", work, root, "--quick", *words))
    assert set(laps) == ({"torch", "generate, like lengths"} if words else {"jax", "torch", *generation.PEERS})
    assert len({lap["amount"] for lap in laps.values()}) == 1 <= laps["torch"]["amount"]
    assert not words or laps["torch"]["amount"] == 4 * 6


@pytest.mark.acceptance
@pytest.mark.slow
def test_grpo_of_ours_and_theirs_makes_as_many_samples(work: Path, root: Path) -> None:
    """Both backends sample the same texts; TRL draws by other numbers, so its samples are only as many."""
    words = ("--weights", "2", "--prompts", "2", "--samples", "2", "--max-new-tokens", "6")
    contestants = results_of("grpo", work, root, *words, *QUICK)["contestants"]
    laps = {name: result["laps"][0] for name, result in contestants.items()}
    assert {name: lap["amount"] for name, lap in laps.items()} == {"jax": 4, "torch": 4, "TRL": 4}
    assert laps["jax"]["facts"] == laps["torch"]["facts"]
    assert all(0 < lap["facts"]["tokens a sample"] <= 6 for lap in laps.values())


@pytest.mark.acceptance
@pytest.mark.slow
def test_the_powers_of_a_backend_are_tried_and_its_laps_made(work: Path, root: Path) -> None:
    """A trial that fails of itself would read as a power that is lacking: torch has all but pieces of an answer."""
    words = ("--backends", "torch", "--steps", "2", "--weights", "2", "--prompts", "4", "--max-new-tokens", "6")
    made = results_of("backends", work, root, *words, *QUICK)
    assert set(made["capabilities"]["torch"].values()) == {"yes"}
    for name in ("training", "generation"):
        assert made[name]["contestants"]["torch"]["laps"][0]["amount"] > 0


@pytest.mark.acceptance
@pytest.mark.slow
def test_startup_measures_all_three_states(work: Path, root: Path) -> None:
    """The compilation cache outside the run folder makes jax's second start cheaper."""
    words = ("--backends", "jax", "tracking=none", "hardware=cpu", "dataset.limit.train=64")
    made = results_of("startup", work, root, *words)["backends"]["jax"]
    assert set(made["starts"]) == {"first", "cold", "warm"}
    cold, warm = (made["starts"][state][0]["cpu_seconds"] for state in ("cold", "warm"))
    assert cold > warm > 0
    assert made["cold_over_warm"]["median"] == pytest.approx(cold / warm)


@pytest.mark.acceptance
@pytest.mark.slow
def test_adapter_measures_the_same_work_with_and_without(work: Path, root: Path) -> None:
    """At its first update an adapter adds nothing yet: equal losses mean equal weights and traces."""
    words = (
        "--backends",
        "torch",
        "--steps",
        "1",
        *QUICK,
        "tokenizer=bpe",
        "training.row_length=null",
        "dataset.max_length=null",
    )
    made = results_of("adapter", work, root, *words)
    full, lora = (made["cases"][f"torch {what}"] for what in ("full", "lora"))
    assert lora["loss"] == pytest.approx(full["loss"], rel=1e-5)
    for case in (full, lora):
        assert case["peak"] >= case["after_import"] > 2**26
    above = [case["peak"] - case["after_import"] for case in (lora, full)]
    assert made["ratios"] == {"torch": pytest.approx(above[0] / above[1])}


@pytest.mark.slow
def test_quantize_measures_what_each_kind_changes(work: Path) -> None:
    """A model of random weights: fewer bits are smaller, and further off."""
    words = ("--batches", "1", "--backends", "torch", "--json", "made.json", "tokenizer=bpe", "format=lines", *QUICK)
    quantize.main([*words, "training.row_length=null"])
    made = json.loads((work / "made.json").read_text("utf-8"))["backends"]["torch"]
    assert made["full"]["mean"] == 0
    assert 0 < made["int8"]["mean"] < made["nf4"]["mean"] < 0.5
    assert made["nf4"]["mebibytes"] < made["int8"]["mebibytes"] * 0.6 < made["full"]["mebibytes"] * 0.2
