"""Curves of a sweep: what is on the axis, what is a line, intervals over seeds, published values beside them."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from scipy import stats

from tests.conftest import config_of
from tests.sweeps.test_ranking import metrics
from tunix_rt.config.execution import Published
from tunix_rt.errors import ConfigError
from tunix_rt.runs.rates import Interval
from tunix_rt.runs.sweep import MemberRecord
from tunix_rt.sweeps import curve_plot
from tunix_rt.sweeps.curves import Curves, curves_of, interval_of, record, rows
from tunix_rt.sweeps.ranking import Member


def member(k: int, **values: object) -> Member:
    return Member(MemberRecord(tuple(f"{key}={value}" for key, value in values.items()), "finished", "r"), metrics(k))


def found(*members: Member) -> Curves:
    curves = curves_of(members, "accuracy")
    assert curves is not None
    return curves


RIGHT = {
    ("plain", 500): (0, 0, 1),
    ("plain", 2000): (4, 6, 5),
    ("reversed", 500): (2, 2, 2),
    ("reversed", 2000): (9, 9, 9),
}
GRID = [
    member(RIGHT[wording, n][seed], seed=seed, wording=wording, n=n)
    for seed, wording, n in product(range(3), ("reversed", "plain"), (2000, 500))
]


def test_a_line_for_each_value_of_the_other_key_and_a_point_for_all_seeds() -> None:
    curves = found(*GRID)
    assert (curves.x, curves.line, curves.seeds) == ("n", "wording", ("seed",))
    assert [(p.line, p.x) for p in curves.points] == [
        ("reversed", 500.0), ("reversed", 2000.0), ("plain", 500.0), ("plain", 2000.0)
    ], "lines as declared, each from its smallest value"  # fmt: skip
    last = curves.lines()["plain"][1]
    assert last.values == (0.4, 0.6, 0.5)
    assert last.mean == pytest.approx(0.5)
    columns, lines = rows(curves)
    assert columns == ["wording", "n", "mean accuracy", "95 % interval", "members"]
    assert lines[1] == ["reversed", "2000", "90.0 %", "[45.0 %, 100.0 %]", "3"]


def test_the_interval_is_students_and_never_narrower_than_that_of_the_items() -> None:
    """0.5 ± 4.303 · 0.1 / √3, by a table of Student's t."""
    between = interval_of([0.4, 0.6, 0.5], [None] * 3)
    assert (between.low, between.high) == pytest.approx((0.5 - 0.24841, 0.5 + 0.24841), abs=1e-5)
    narrow, wide = Interval(0.45, 0.55), Interval(0.1, 0.8)
    assert interval_of([0.4, 0.6, 0.5], [narrow] * 3) == between
    assert interval_of([0.4, 0.6, 0.5], [narrow, wide, wide]).low == pytest.approx((0.45 + 0.1 + 0.1) / 3)
    assert interval_of([1.0, 1.0], [Interval(0.9, 1.0)] * 2) == Interval(0.9, 1.0), "equal seeds say nothing of items"
    assert interval_of([0.0, 1.0], [wide, wide]) == Interval(0.0, 1.0), "a rate stays one"
    assert interval_of([3.0], [None]) == Interval(3.0, 3.0)
    low, high = stats.t.interval(0.95, 1, 15.0, stats.sem([10.0, 20.0]))
    assert interval_of([10.0, 20.0], [None, None]) == Interval(low, high), "any other number has no ends to stay in"


def test_one_key_is_one_line_and_the_key_with_more_numbers_is_on_the_axis() -> None:
    curves = found(*(member(k, rate=rate) for k, rate in enumerate(("1e-3", "1e-2", "1e-1"))))
    assert (curves.x, curves.line, [p.x for p in curves.points]) == ("rate", None, [0.001, 0.01, 0.1])
    two = found(*(member(1, width=width, n=n) for width, n in product((16, 32), (1, 2, 3))))
    assert (two.x, two.line) == ("n", "width")


@pytest.mark.parametrize(
    "members",
    [
        [member(1, seed=0), member(2, seed=1)],
        [member(1, steps="full"), member(2, steps="none")],
        [member(1, a=a, b=b, c=c) for a, b, c in product((1, 2), repeat=3)],
        [member(1, **{"dataset.seed": 0, "a": 1, "b": 1}), member(1, **{"dataset.seed": 1, "a": 2, "b": 2})],
        [],
    ],
    ids=["seeds", "no number", "three keys", "another test set", "nothing"],
)
def test_what_gives_no_curves(members: list[Member]) -> None:
    assert curves_of(members, "accuracy") is None


def test_published_values_are_drawn_and_recorded_and_the_same_curves_give_the_same_bytes(work: Path) -> None:
    published = Published(source="a paper", x=(500.0, 4000.0), lines={"plain": (0.0, None), "other": (1.0, 1.0)})
    curves = found(*GRID)
    for name in ("a.png", "b.png"):
        curve_plot.draw(curves, published, work / name)
    curve_plot.draw(curves, None, work / "alone.png")
    pictures = {name: (work / name).read_bytes() for name in ("a.png", "b.png", "alone.png")}
    assert pictures["a.png"] == pictures["b.png"] != pictures["alone.png"]
    assert record(curves, published)["published"]["lines"]["plain"] == (0.0, None)


def test_the_published_facts_are_those_of_the_paper() -> None:
    """Of its repository's `plots/sample_efficiency.csv`, some by hand: an example of each format, the largest set."""
    published = config_of(["+experiment=teaching_arithmetic"]).sweep.published
    assert published is not None
    assert "2307.03381" in published.source
    curve = {name: dict(zip(published.x, values, strict=True)) for name, values in published.lines.items()}
    assert curve["plain"][5000] == 0.8109
    assert curve["reversed"][2000] == 0.3065
    assert curve["simplified_scratchpad"][1000] == 0.8465
    assert curve["detailed_scratchpad"][250] == 0.595
    assert [curve[name][20000] for name in curve] == [0.9012, 1.0, 1.0, 1.0]


def test_a_published_line_has_a_value_for_every_place() -> None:
    with pytest.raises(ConfigError, match=r"sweep\.published.*lines\.plain: 1 values, but x has 9"):
        config_of(["+experiment=teaching_arithmetic", "sweep.published.lines.plain=[0.5]"])
