"""The numbers in two `report.html`: names, folders and speeds may differ, a verdict or a chart's value may not."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tunix_rt.records.pages import first_difference_of_pages

ANSWERS = {"other": None, "prompts": [{"id": "a", "samples": [{"correct": True, "probabilities": [0.5]}]}]}


def chart(name: str, value: float) -> dict[str, Any]:
    return {"id": name, "spec": {"data": {"values": [{"step": 1, "value": value}]}}}


def page(file: Path, answers: Any = ANSWERS, loss: float = 1.0, speed: float = 100.0) -> Path:
    """A page with this data, as the package writes it."""
    data = {"answers": answers, "charts": [chart("loss", loss), chart("speed", speed)], "vega": "x"}
    packed = {
        name: base64.b64encode(gzip.compress(json.dumps(value).encode())).decode() for name, value in data.items()
    }
    blocks = (f'<script type="application/gzip" id="data-{name}">{text}</script>' for name, text in packed.items())
    file.write_text(f"<title>{file.stem}</title>" + "\n".join(blocks), "utf-8")
    return file


def test_pages_of_two_runs_with_the_same_numbers_are_equal(tmp_path: Path) -> None:
    assert first_difference_of_pages(page(tmp_path / "a.html"), page(tmp_path / "b.html", speed=90.0)) is None
    assert first_difference_of_pages(tmp_path / "older run", page(tmp_path / "b.html")) is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"loss": 1.5}, "report.html charts.loss.spec.data.values.0.value: 1.0 there, 1.5 here"),
        (
            {"answers": {"other": None, "prompts": [{"id": "a", "samples": [{"correct": False}]}]}},
            "report.html answers.prompts.0.samples.0.correct: True there, False here",
        ),
    ],
)
def test_the_first_number_that_differs_is_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    assert first_difference_of_pages(page(tmp_path / "a.html"), page(tmp_path / "b.html", **changed)) == message


def test_a_page_that_is_not_there_again(tmp_path: Path) -> None:
    assert first_difference_of_pages(page(tmp_path / "a.html"), tmp_path / "b.html") == "report.html: missing here"
