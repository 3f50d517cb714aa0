"""What is said while training goes on: once, and only what rounding does not explain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.traces.test_rollout import ROLLOUT
from tunix_rt.rollouts.watch import Watch


@pytest.mark.parametrize(
    ("precision", "gap", "said"),
    [("float32", 9e-5, False), ("float32", 2e-4, True), ("bfloat16", 1e-2, False), ("bfloat16", 3e-2, True)],
)
def test_a_gap_between_sampler_and_trainer(
    precision: Any, gap: float, said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = Watch(precision)
    asked = [[ROLLOUT, replace(ROLLOUT, mismatch=gap)]]
    watch.look(3, asked, failed=0)
    found = capsys.readouterr().err.split()
    assert ("step 3: sampler and trainer differ by up to" in " ".join(found)) == said
    watch.look(4, asked, failed=0)
    assert capsys.readouterr().err == ""


def test_answers_without_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    watch = Watch("float32")
    for failed in (0, 2, 3):
        watch.look(1 + failed, [[ROLLOUT]], failed)
    said = "warning: step 3: 2 answers have no verdict (it took too long, or a scorer failed on them); it counts as 0"
    assert capsys.readouterr().err.split() == said.split()


def test_most_answers_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents: learning from the begin of answers that nobody let end, in silence."""
    watch, cut = Watch("float32"), replace(ROLLOUT, finish_reason="length")
    watch.look(1, [[ROLLOUT, cut]], 0)
    assert capsys.readouterr().err == ""
    for step in (2, 3):
        watch.look(step, [[cut, cut, ROLLOUT]], 0)
    assert capsys.readouterr().err.split()[:10] == "warning: step 2: 2 of 3 answers were cut at".split()
