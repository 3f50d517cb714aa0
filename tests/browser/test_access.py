"""Everybody can use the page: axe-core's rules, names and roles; and the plot library is the one that was bundled."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tests.browser.conftest import Open

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(pages: dict[str, Path], open_page: Open, scheme: str) -> None:
    """Names, roles and contrast of the whole page; and of one prompt with its tokens by probability."""
    from axe_playwright_python.sync_playwright import Axe

    opened = open_page(pages["one"], scheme=scheme)
    opened.draw_charts()
    opened.page.locator("figure.chart summary").first.click()
    found = Axe().run(opened.page).response["violations"]
    opened.page.keyboard.press("p")
    found += Axe().run(opened.page, context="#detail").response["violations"]
    assert [(one["id"], one["nodes"][0]["html"][:200], one["nodes"][0]["failureSummary"]) for one in found] == []


def test_parts_have_names(pages: dict[str, Path], open_page: Open) -> None:
    page = open_page(pages["one"]).page
    for role, name in (
        ("navigation", "Sections"),
        ("search", "Filter the answers"),
        ("listbox", "Answers, wrong ones first"),
        ("searchbox", "Search prompts, completions and answers"),
        ("combobox", "Verdict"),
        ("button", "Switch between light and dark"),
    ):
        assert page.get_by_role(role, name=name, exact=True).count() == 1, name  # type: ignore[arg-type]
    assert page.get_by_role("main").count() == page.get_by_role("banner").count() == 1
    assert page.locator("#count").get_attribute("aria-live") == "polite"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the answers"


def test_the_plot_library_is_the_one_of_the_lock() -> None:
    from tests.browser.vega import FILE, bundle

    assert gzip.decompress(FILE.read_bytes()) == bundle(), "renew it: python -m tests.browser.vega"
