"""Identities that the README quotes are those that a person gets. `python -m tests.test_readme` writes them anew."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT, config_of
from tunix_rt.config.identity import identities

README = ROOT / "README.md"
STEPS = ("full", "reversed", "none", "wrong", "shuffled")
QUICKSTART = re.compile(r"(?<=quickstart/)[0-9a-f]{12}")


def identity(*overrides: str) -> str:
    """The name of the run folder."""
    return identities(config_of(overrides), {})["evaluate"]


def of_steps(kind: str) -> str:
    return identity("+experiment=steps_or_answer", f"dataset.source.steps={kind}")


def row_of(kind: str) -> re.Pattern[str]:
    """In the ranked table, where a run is named behind what it changed."""
    return re.compile(rf" {kind} .*runs/steps_or_answer/([0-9a-f]{{12}})")


def test_the_quickstart_is_quoted_by_its_identity() -> None:
    """Prevents: `reproduce quickstart/711699b908e9`, which no clone has."""
    quoted = QUICKSTART.findall(README.read_text("utf-8"))
    assert len(quoted) >= 4
    assert set(quoted) == {identity("+experiment=quickstart")}


@pytest.mark.parametrize("kind", STEPS)
def test_the_members_of_steps_or_answer_are_quoted_by_theirs(kind: str) -> None:
    assert row_of(kind).findall(README.read_text("utf-8")) == [of_steps(kind)]


if __name__ == "__main__":
    text = QUICKSTART.sub(identity("+experiment=quickstart"), README.read_text("utf-8"))
    for kind in STEPS:
        for quoted in row_of(kind).findall(text):
            text = text.replace(f"steps_or_answer/{quoted}", f"steps_or_answer/{of_steps(kind)}")
    README.write_text(text, "utf-8")
