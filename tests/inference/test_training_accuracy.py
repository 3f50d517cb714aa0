"""The accuracy by which training stops and selects is that by which evaluation judges."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import config_of
from tests.inference.conftest import Scripted
from tunix_rt.batches.reader import Reader
from tunix_rt.evaluation.answers import is_right
from tunix_rt.traces.trace import Trace
from tunix_rt.training.sample import Sampler

TRACES = [Trace(f"t{i}", f"{i}*{i}=", (), str(i * i)) for i in range(10, 14)]


def reply(prompt: str) -> str:
    """For 10 to 12 the right number, but not as the format has it."""
    number = int(prompt.split("*")[0])
    return f"0+{number * number}={number * number if number < 13 else 1}"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (["evaluation.extract=[format]"], 0.0),
        (["evaluation.extract=[last_number]"], 0.75),
        (["evaluation=number", "evaluation.extract=[last_number]"], 0.75),
        (["evaluation=number", "evaluation.extract=[last_number]", "++evaluation.scorers.0.relative_tolerance=1"], 1.0),
    ],
)
def test_it_follows_the_rules_of_evaluation(
    rules: list[str], expected: float, reader: Reader, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents: gsm8k with numeric answers, selected by exact text."""
    sampler = Sampler.of(model_folder, config_of().format, TRACES)
    evaluation = config_of(rules).evaluation
    engine: Any = Scripted(reader, reply)
    assert sampler.accuracy(sampler.answers(engine, None), 7, partial(is_right, evaluation=evaluation)) == expected
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"  step 7 {'right' if expected else 'wrong'}: '10*10=' → '0+100=100'"
    assert len(said) == 2


def test_what_has_nothing_to_compare_with_is_in_no_share(reader: Reader, model_folder: Path) -> None:
    """As in evaluation. Prevents: a program that has no tests counted as a wrong one while training."""
    sampler = Sampler.of(model_folder, config_of().format, TRACES)
    engine: Any = Scripted(reader, reply)
    verdicts = {"t10": True, "t11": False, "t12": None, "t13": None}
    assert sampler.accuracy(sampler.answers(engine, None), 7, lambda _, trace: verdicts[trace.id]) == 0.5
