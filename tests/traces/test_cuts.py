"""Where completions are cut: at the end of a step, then the completion's own way into the answer, in every format."""

from __future__ import annotations

import pytest

from tests.conftest import config_of
from tunix_rt.traces.cuts import Cuts
from tunix_rt.traces.format import formatter

THINK = ["format=think"]
LINES = ["format=lines"]
MARKED = ["format=lines", "format.reader=marker"]
AUTO = ["format=lines", "format.reader=auto"]
BOXED = ["format=lines", "format.reader=boxed"]
TEMPLATE = ["format=template"]


def cuts(overrides: list[str], completion: str) -> Cuts | None:
    return formatter(config_of(overrides).format, None).cuts(completion)


@pytest.mark.parametrize(
    ("format", "completion", "steps", "asking"),
    [
        (LINES, "a\nb\nAnswer: 5", "a|b", ["Answer: ", "a\nAnswer: ", "a\nb\nAnswer: "]),
        (TEMPLATE, "1. a\n2. b\nAnswer: 5", "a|b", ["Answer: ", "1. a\nAnswer: ", "1. a\n2. b\nAnswer: "]),
        (
            THINK,
            "<think>\na\nb\n</think>\n\n5",
            "a|b",
            ["<think>\n\n</think>\n\n", "<think>\na\n</think>\n\n", "<think>\na\nb\n</think>\n\n"],
        ),
        (MARKED, "a\nb\n\n#### 5", "a|b", ["#### ", "a\n\n#### ", "a\nb\n\n#### "]),
        (AUTO, "a\nSo b.\n**Answer:** 5 cm", "a|So b.", ["**Answer:** ", "a\n**Answer:** ", "a\nSo b.\n**Answer:** "]),
        (
            AUTO,
            "<think>\na\nb\n</think>\n\nc\n#### 5",
            "a|b|c",
            [
                "<think>\n\n</think>\n\n#### ",
                "<think>\na\n</think>\n\n#### ",
                "<think>\na\nb\n</think>\n\n#### ",
                "<think>\na\nb\n</think>\n\nc\n#### ",
            ],
        ),
        (
            BOXED,
            "a\nSo 2 + 3 = \\boxed{5}.",
            "a|So 2 + 3 = ",
            ["\\boxed{", "a\n\\boxed{", "a\nSo 2 + 3 = \\boxed{"],
        ),
    ],
    ids=["lines", "template", "think", "marker", "auto", "thoughts and steps", "boxed in a step"],
)
def test_after_each_number_of_steps_comes_the_way_into_the_answer(
    format: list[str], completion: str, steps: str, asking: list[str]
) -> None:
    found = cuts(format, completion)
    assert found is not None
    assert [*found.asking] == asking
    assert completion.startswith(asking[-1]), "all steps kept: nothing is changed"
    assert "|".join(completion[slice(*span)] for span in found.steps) == steps


@pytest.mark.parametrize(
    ("format", "completion"),
    [
        (LINES, "Answer: 5"),
        (LINES, "a\nb\n"),
        (THINK, "<think>\na"),
        (THINK, "<think>\n\n</think>\n\n5"),
        (MARKED, "a\nb"),
        (["format=lines", "format.reader=lines"], "a\nb\n5"),
    ],
)
def test_without_steps_without_an_answer_or_without_a_way_there_is_nothing_to_cut(
    format: list[str], completion: str
) -> None:
    assert cuts(format, completion) is None


def test_a_step_is_replaced_up_to_where_the_next_part_begins() -> None:
    found = cuts(TEMPLATE, "1. a\n2. b\nAnswer: 5")
    assert found is not None
    assert found.replaced(0, "wrong") == "1. wrong\n2. "
    assert found.replaced(1, "wrong") == "1. a\n2. wrong\nAnswer: "
    thought = cuts(THINK, "<think>\nabc\nde\n</think>\n\n5")
    assert thought is not None
    assert thought.replaced(1, "f") == "<think>\nabc\nf\n</think>\n\n"
    assert thought.filled(1, ".-") == "<think>\n.-.\n</think>\n\n"
    assert thought.filled(2, ".-") == "<think>\n.-.\n.-\n</think>\n\n"
