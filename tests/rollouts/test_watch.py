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
    assert (
        capsys.readouterr().err.split()
        == "warning: step 3: 2 answers took too long to judge; their verdicts count as 0".split()
    )
