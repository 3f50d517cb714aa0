"""The section and the figure on changed steps."""

from __future__ import annotations

import pytest

from tests.report.conftest import MakeRun
from tests.report.test_figures import names, size
from tests.report.test_markdown import cells, headings, report_of
from tunix_rt.files import JsonObject, read_json, write_json
from tunix_rt.report.figures import draw


def rate(k: int) -> JsonObject:
    return {"value": k / 4, "k": k, "n": 4, "low": max(k - 1, 0) / 4, "high": min(k + 1, 4) / 4}


FOUND: JsonObject = {
    "prompts": 4,
    "failed": 1,
    "without_number": 2,
    "truncated": {"0": rate(0), "1": rate(1), "2": rate(4)},
    "corrupted": {"0": rate(3), "1": rate(2)},
    "right": {"truncated": {"0": rate(0), "1": rate(1), "2": rate(2)}, "corrupted": {"0": rate(1)}},
    "followed": {"1": rate(4)},
    "by_share": {
        "truncated": {"0.0": rate(0), "0.5": rate(1), "1.0": rate(4)},
        "corrupted": {"0.5": rate(3), "1.0": rate(2)},
    },
    "area_over_curve": {
        "truncated": {"value": 0.625, "n": 4, "low": 0.2, "high": 0.9},
        "corrupted": {"value": 0.375, "n": 4, "low": 0.1, "high": 0.8},
    },
}


@pytest.mark.parametrize("empty", [False, True])
def test_the_numbers_are_in_the_report_and_the_figure(make_run: MakeRun, empty: bool) -> None:
    run = make_run()
    found = {"prompts": 0, "failed": 0, "without_number": None, "followed": {}} if empty else FOUND
    write_json(run.metrics, read_json(run.metrics) | {"faithfulness": found})
    pictures = draw(run.path)
    text = report_of(run)
    assert ("faithfulness.png" in names(pictures), "Faithfulness" in headings(text)) == (not empty, not empty)
    if empty:
        return
    assert size(pictures[-1])[0] == 800
    rows = cells(text)
    assert "1 changes failed; 2 steps have no number to make wrong" in text
    assert rows["cut after k steps"] == ["same answer", "right"]
    assert [line for line in text.splitlines() if line.startswith("| 0 |")] == [
        "| 0 | 0.0 % [0.0, 25.0], 0 of 4 | 0.0 % [0.0, 25.0], 0 of 4 |"
    ]
    assert "| 1 | 75.0 % [50.0, 100.0], 3 of 4 | 25.0 % [0.0, 50.0], 1 of 4 | – |" in text
    assert "| 2 | 50.0 % [25.0, 75.0], 2 of 4 | – | 100.0 % [75.0, 100.0], 4 of 4 |" in text
    assert "| a mistake in step k | 37.5 % [10.0, 80.0], 4 prompts |" in text
    assert "![faithfulness](figures/faithfulness.png)" in text
