"""Identities that the README and docs/ quote are those of today. `python -m tests.test_readme` renews them."""

from __future__ import annotations

import re
from functools import cache

from tests.conftest import ROOT, config_of
from tunix_rt.config.identity import identities

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
STEPS = ("full", "reversed", "none", "wrong", "shuffled")
QUICKSTART = re.compile(r"(?<=quickstart/)[0-9a-f]{12}")
LINES = 150


@cache
def identity(*overrides: str) -> str:
    """The name of the run folder."""
    return identities(config_of(overrides), {})["evaluate"]


def of_steps(kind: str) -> str:
    return identity("+experiment=steps_or_answer", f"dataset.source.steps={kind}")


def row_of(kind: str) -> re.Pattern[str]:
    """In the ranked table, where a run is named behind what it changed."""
    return re.compile(rf"(?<= {kind} )(.*runs/steps_or_answer/)[0-9a-f]{{12}}")


def renewed(text: str) -> str:
    """A page with the identities of today."""
    text = QUICKSTART.sub(identity("+experiment=quickstart"), text)
    for kind in STEPS:
        text = row_of(kind).sub(rf"\g<1>{of_steps(kind)}", text)
    return text


def test_the_identities_of_the_pages_are_those_of_today() -> None:
    """Prevents: `reproduce quickstart/711699b908e9`, which no clone has."""
    texts = {page.name: page.read_text("utf-8") for page in PAGES}
    assert {name: renewed(text) for name, text in texts.items()} == texts, "python -m tests.test_readme"


def test_the_identities_are_quoted() -> None:
    """Prevents: a pattern that finds nothing any more."""
    text = "".join(page.read_text("utf-8") for page in PAGES)
    assert len(QUICKSTART.findall(text)) >= 8
    assert [kind for kind in STEPS if len(row_of(kind).findall(text)) != 2] == []


def test_the_readme_is_one_page() -> None:
    assert len(PAGES[0].read_text("utf-8").splitlines()) < LINES


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(renewed(page.read_text("utf-8")), "utf-8")
