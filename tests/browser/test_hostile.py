"""What models and data files say never runs, never becomes an element, and the page asks nobody for anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.conftest import Open
from tests.report.made import HOSTILE

pytestmark = pytest.mark.browser
VISIT = """() => {
  for (const chart of document.querySelectorAll("figure.chart details")) chart.open = true;
  window.dispatchEvent(new Event("beforeprint"));
}"""
"""All charts, all their numbers, and all answers as they are printed."""


def test_nothing_that_a_model_wrote_runs(pages: dict[str, Path], open_page: Open) -> None:
    opened = open_page(pages["hostile"])
    page = opened.page
    before = page.locator("script").count()
    for _ in HOSTILE:
        page.keyboard.press("j")
    page.keyboard.press("p")
    page.evaluate(VISIT)
    opened.draw_charts()
    page.locator("figure.chart .mark-symbol path").first.hover(force=True)
    assert page.evaluate("window.pwned") is None
    assert page.locator("script").count() == before + 1, "the plot library's"
    assert page.locator("main img, main iframe, [onerror], [onfocus], #answers a").count() == 0
    assert page.evaluate("window.violations") == []
    assert opened.requests == [pages["hostile"].as_uri()]
    assert opened.complaints == []


def test_the_policy_would_stop_a_script(pages: dict[str, Path], open_page: Open) -> None:
    """So that the test above says something: what gets in does not run, and is seen."""
    opened = open_page(pages["hostile"])
    opened.page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'pwned = 1'}))")
    opened.page.evaluate("document.body.append(Object.assign(new Image(), {src: 'https://example.org/x.png'}))")
    opened.page.wait_for_timeout(200)
    assert opened.page.evaluate("window.violations") == ["inline", "https://example.org/x.png"]
    assert opened.page.evaluate("window.pwned") is None


def test_every_text_is_shown_as_it_is(pages: dict[str, Path], open_page: Open) -> None:
    """Invisible characters as escapes, everything else unchanged."""
    opened = open_page(pages["hostile"])
    opened.page.evaluate(VISIT)
    shown = [text.partition("] ")[2] for text in opened.page.locator("#print .completion").all_text_contents()]
    assert set(shown[::2]) == {escaped(text) for text in HOSTILE}
    assert "\\u202egnp.exe\\u2066\\u200b" in shown and "\\ud83d alone" in shown


def escaped(text: str) -> str:
    """By the standard library: what is printable stays, all else as `\\uXXXX`."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\u{ord(c):04x}" for c in text)
