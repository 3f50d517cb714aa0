"""Generated problems: the quickstart's text byte for byte, true steps, and arms that differ in steps only."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tunix_rt.config.dataset import ArithmeticSource
from tunix_rt.errors import DataError
from tunix_rt.traces.arithmetic import generate
from tunix_rt.traces.checks import find_overlaps
from tunix_rt.traces.sources import Record
from tunix_rt.traces.trace import Trace

Make = Callable[..., ArithmeticSource]
EQUATION = re.compile(r"(?:[a-z ]+: )?(\d+) ?([*+]) ?(\d+)(?: ?\+ ?(\d+))? ?= ?(\d+)")


def text(trace: Trace) -> str:
    return trace.prompt + "".join(f"{step.content};" for step in trace.steps) + trace.final_answer


def equation(step: str) -> tuple[int, str, int, int, int]:
    """(x, sign, y, carry, written result)."""
    found = EQUATION.fullmatch(step)
    assert found, step
    x, sign, y, carry, result = found.groups()
    return int(x), sign, int(y), int(carry or 0), int(result)


def is_right(step: str) -> bool:
    x, sign, y, carry, result = equation(step)
    return (x * y if sign == "*" else x + y) + carry == result


def contents(trace: Trace) -> list[str]:
    return [step.content for step in trace.steps]


def by_id(source: ArithmeticSource, seed: int = 0) -> dict[str, Trace]:
    return {trace.id: trace for trace in generate(source, seed)}


def test_the_quickstart_text_is_byte_for_byte_the_measured_one(arithmetic: Make) -> None:
    traces = by_id(arithmetic())
    assert text(traces["18*97"]) == ("18*97=8*7=56;1*7+5=12;8*9=72;1*9+7=16;2+2+0=04;1+6+0=07;0+1+0=01;1746")
    assert text(traces["18*56"]) == ("18*56=8*6=48;1*6+4=10;8*5=40;1*5+4=09;0+0+0=00;1+9+0=10;0+0+1=01;1008")
    assert len(traces) == 8100
    assert {len(text(trace)) for trace in traces.values()} == {69}


@pytest.mark.parametrize("digits", [(1, 1), (4, 1), (1, 3), (3, 2), (3, 3), (6, 6)])
@pytest.mark.parametrize("operation", ["add", "multiply"])
def test_every_step_is_true_and_the_digits_of_the_steps_are_the_answer(
    arithmetic: Make, operation: str, digits: tuple[int, int]
) -> None:
    traces = list(generate(arithmetic(operation=operation, digits=digits, num_traces=40), 3))
    assert len({len(text(trace)) for trace in traces}) == 1, "fields have fixed widths"
    for trace in traces:
        a, b = trace.meta["operands"]
        assert [len(str(a)), len(str(b))] == list(digits)
        assert int(trace.final_answer) == (a + b if operation == "add" else a * b)
        assert all(is_right(step.content) for step in trace.steps)
        assert trace.meta["carries"] == sum(equation(step.content)[4] >= 10 for step in trace.steps)
        sums = [f"{result:02d}" for _, sign, _, _, result in map(equation, contents(trace)) if sign == "+"]
        if operation == "add":
            assert trace.final_answer == sums[-1] + "".join(result[1] for result in sums[-2::-1])
        elif min(digits) > 1:
            last = [result[1] for result in sums[-digits[0] - 1 :]]
            assert trace.final_answer.startswith("".join(reversed(last)))


@pytest.mark.parametrize("wording", ["symbols", "words"])
@pytest.mark.parametrize(("operation", "digits"), [("add", (3, 3)), ("multiply", (2, 1)), ("multiply", (2, 2))])
def test_the_arms_of_a_seed_differ_in_their_steps_only(
    arithmetic: Make, operation: str, digits: tuple[int, int], wording: str
) -> None:
    def arm(steps: str) -> list[Trace]:
        source = arithmetic(operation=operation, digits=digits, wording=wording, num_traces=50, steps=steps)
        return list(generate(source, 1))

    full = arm("full")
    for name in ("none", "shuffled", "reversed", "wrong"):
        other = arm(name)
        assert [(t.id, t.prompt, t.final_answer, t.meta) for t in other] == [
            (t.id, t.prompt, t.final_answer, t.meta) for t in full
        ]
        assert other == arm(name), "the same seed gives the same text"
        assert [t.steps for t in other] != [t.steps for t in full]
    contents = [[step.content for step in trace.steps] for trace in full]
    assert [[step.content for step in trace.steps] for trace in arm("reversed")] == [c[::-1] for c in contents]
    shuffled = [[step.content for step in trace.steps] for trace in arm("shuffled")]
    assert [sorted(steps) for steps in shuffled] == [sorted(steps) for steps in contents]
    assert all([step.i for step in trace.steps] == list(range(len(trace.steps))) for trace in arm("shuffled"))
    assert all(trace.steps == () for trace in arm("none"))


def test_shuffled_traces_have_orders_of_their_own(arithmetic: Make) -> None:
    orders = set()
    full = by_id(arithmetic(num_traces=60))
    for trace in generate(arithmetic(num_traces=60, steps="shuffled"), 0):
        true = contents(full[trace.id])
        if len(set(true)) == len(true):
            orders.add(tuple(map(true.index, contents(trace))))
    assert len(orders) > 30


def test_wrong_carries_are_carried_through_to_the_last_step(arithmetic: Make) -> None:
    """Were the later steps still built on true digits, a model would learn to ignore the wrong ones."""
    wrong_results = 0
    for trace in generate(arithmetic(num_traces=300, steps="wrong"), 0):
        a, b = trace.meta["operands"]
        first, second, third, fourth, *sums = (equation(step.content) for step in trace.steps)
        assert all(is_right(step.content) for step in trace.steps), "right but for the carry"
        assert [first[0], first[2], second[0], third[2]] == [a % 10, b % 10, a // 10, b // 10]
        p = [first[4] % 10, second[4] % 10, second[4] // 10]
        q = [third[4] % 10, fourth[4] % 10, fourth[4] // 10]
        assert [(x, y) for x, _, y, _, _ in sums] == [(p[1], q[0]), (p[2], q[1]), (0, q[2])]
        reached = first[4] % 10 + sum(10 ** (i + 1) * (s[4] % 10) for i, s in enumerate(sums))
        assert int(trace.final_answer) == a * b, "the answer stays true"
        wrong_results += reached != a * b
    assert wrong_results > 270


def test_addition_in_words_is_written_out_by_columns(arithmetic: Make) -> None:
    traces = by_id(arithmetic(operation="add", digits=(3, 3), wording="words", num_traces=400))
    trace = next(iter(traces.values()))
    a, b = trace.meta["operands"]
    assert re.fullmatch(
        rf"([A-Z][a-z]+) has {a} (\w+)s and gets {b} more\. How many \2s does \1 have now\?", trace.prompt
    )
    assert trace.final_answer == str(a + b)
    assert [step.content.split(":")[0] for step in trace.steps] == ["ones", "tens", "hundreds"]
    assert all(is_right(step.content) for trace in traces.values() for step in trace.steps)
    in_order = generate(arithmetic(operation="add", digits=(3, 3), wording="words"), 0)
    example = next(trace for trace in in_order if trace.id == "141+365")
    assert example.final_answer == "506"
    assert contents(example) == [
        "ones: 1 + 5 + 0 = 6",
        "tens: 4 + 6 + 0 = 10",
        "hundreds: 1 + 3 + 1 = 5",
    ]


def test_multiplication_in_words_is_written_out_by_places(arithmetic: Make) -> None:
    source = arithmetic(digits=(2, 1), wording="words")
    traces = by_id(source)
    assert contents(traces["16*5"]) == ["10 * 5 = 50", "6 * 5 = 30", "50 + 30 = 80"]
    assert traces["16*5"].final_answer == "80"
    assert len(traces) == len({trace.prompt for trace in traces.values()}) == 810
    assert " 1 " in traces["16*1"].prompt and "s in each" not in traces["16*1"].prompt, "one thing, no plural"


@pytest.mark.parametrize(("operation", "digits"), [("add", (3, 3)), ("multiply", (2, 1))])
def test_problems_in_words_share_no_run_of_13_words(arithmetic: Make, operation: str, digits: tuple[int, int]) -> None:
    """The default check for contamination would else refuse our own data."""
    source = arithmetic(operation=operation, digits=digits, wording="words", num_traces=800)
    records = [Record(trace.id, trace) for trace in generate(source, 0)]
    assert find_overlaps(records[:400], records[400:], 13) == []


def test_commuted_problems_are_one_group(arithmetic: Make) -> None:
    traces = by_id(arithmetic())
    assert traces["47*86"].meta["group"] == traces["86*47"].meta["group"] != traces["47*85"].meta["group"]


def test_more_traces_begin_with_the_fewer_ones_and_other_seeds_draw_others(arithmetic: Make) -> None:
    few, many = (list(generate(arithmetic(num_traces=n), 0)) for n in (20, 50))
    assert many[:20] == few
    assert len({trace.id for trace in many}) == 50
    assert [trace.id for trace in generate(arithmetic(num_traces=20), 1)] != [trace.id for trace in few]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_traces": 8101}, "8,101 distinct problems asked for, but only 8,100 have digits=[2, 2]"),
        ({"digits": (6, 6)}, "null means all, and 810,000,000,000 problems"),
    ],
)
def test_a_number_of_problems_that_cannot_be_is_refused(
    arithmetic: Make, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        list(generate(arithmetic(**changed), 0))
    assert message in str(caught.value)


def test_all_two_digit_problems_of_a_seed_can_be_drawn(arithmetic: Make) -> None:
    assert len({trace.id for trace in generate(arithmetic(num_traces=8100), 0)}) == 8100
