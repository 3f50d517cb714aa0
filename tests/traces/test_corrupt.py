"""Mistakes in steps: one number is another one, wherever the step writes it, and nothing else changes."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tunix_rt.traces.corrupt import corrupted, numbers_in


@pytest.mark.parametrize(
    ("step", "changed"),
    [
        ("6*7+0=42", "6*7+0=@"),
        ("Natalia sold 48/2 = <<48/2=24>>24 clips in May.", "Natalia sold 48/2 = <<48/2=@>>@ clips in May."),
        ("24/1 = <<24/1=24>>24 clips", "24/1 = <<24/1=@>>@ clips"),
        ("2 * 600 = $1,200.", "2 * 600 = $@."),
        ("100 / 3 = 33.33, so each gets 33.33", "100 / 3 = @, so each gets @"),
        ("3*2=06", "3*2=@"),
        ("12 = 3 * 4 = 12 apples", "12 = 3 * 4 = @ apples"),
        ("x = 5; 5 + 2 = 7", "x = 5; 5 + 2 = @"),
        ("So she has 12 apples left", "So she has @ apples left"),
        ("\\frac{1}{2} \\times 8 = \\boxed{4}", "\\frac{1}{2} \\times 8 = \\boxed{@}"),
    ],
)
def test_the_result_is_changed_wherever_it_is_written(step: str, changed: str) -> None:
    for seed in range(20):
        found = corrupted(step, str(seed))
        assert found is not None
        assert found.text == changed.replace("@", found.replacement)
        was, now = (Decimal(text.replace(",", "")) for text in (found.original, found.replacement))
        assert 0 < abs(was - now) <= 9 * Decimal(1).scaleb(int(was.as_tuple().exponent))
        assert now >= 0
        assert len(found.replacement) == len(found.original)


def test_it_depends_on_the_seed_alone_and_prefers_a_number_that_is_nowhere_else() -> None:
    several = {corrupted("5+5=10", str(seed)) for seed in range(40)}
    assert {corrupted("5+5=10", str(seed)) for seed in range(40)} == several
    assert len(several) > 5
    all_but_one = {Decimal(number) for number in range(10, 20)} - {Decimal(16)}
    assert {str(found.replacement) for seed in range(9) if (found := corrupted("5+5=10", str(seed), all_but_one))} == {
        "16"
    }


@pytest.mark.parametrize("step", ["", "the sum of both", "x = y", "= 1" + "0" * 40])
def test_without_a_number_there_is_no_mistake(step: str) -> None:
    assert corrupted(step, "0") is None


def test_numbers_are_found_by_their_value() -> None:
    assert numbers_in("1,200 of 3.50 and 007") == {Decimal(1200), Decimal("3.5"), Decimal(7)}
