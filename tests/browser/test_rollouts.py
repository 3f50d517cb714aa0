"""The answers that were learned from, in the page: steps, kinds of prompts, and that whatever they say is text."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.conftest import Open
from tests.browser.test_hostile import escaped
from tests.report.made_rollouts import WRITABLE, hostile_rollouts, learned_run
from tunix_rt.report.html.page import page

pytestmark = pytest.mark.browser


@pytest.fixture
def learned(tmp_path: Path) -> Path:
    """The page of a run of six steps; at each, five prompts have four answers."""
    file = tmp_path / "learned.html"
    file.write_text(page(learned_run(tmp_path, steps=6, prompts=5, samples=4)), "utf-8")
    return file


def test_steps_and_prompts_are_chosen(learned: Path, open_page: Open) -> None:
    opened = open_page(learned)
    section = opened.page.locator("#rollouts")
    assert section.locator("#rollout-at").inner_text() == "Step 1"
    everything = section.locator(".group").count()
    section.get_by_role("combobox", name="Prompts").select_option("mixed")
    mixed = section.locator(".group").count()
    section.get_by_role("combobox", name="Prompts").select_option("same")
    assert 0 < mixed < everything == mixed + section.locator(".group").count() == 5
    section.get_by_role("combobox", name="Prompts").select_option("mixed")
    card = section.locator(".group").first.locator(".rollout")
    assert "best" in card.first.inner_text() and "worst" in card.last.inner_text()
    section.get_by_role("button", name="Later step").click()
    assert section.locator("#rollout-at").inner_text() == "Step 2"
    section.get_by_role("slider", name="Step").press("End")
    assert (
        section.locator("#rollout-at").inner_text() == "Step 6"
        and "reward" in section.locator("#rollout-facts").inner_text()
    )
    assert section.locator("#rollout-curve polyline").get_attribute("points").count(",") == 6  # type: ignore[union-attr]
    assert opened.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(learned: Path, open_page: Open, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(open_page(learned, scheme=scheme).page, context="#rollouts").response["violations"]
    assert [(one["id"], one["nodes"][0]["html"][:200], one["nodes"][0]["failureSummary"]) for one in found] == []


def test_whatever_was_written_is_text(tmp_path: Path, open_page: Open) -> None:
    file = tmp_path / "hostile.html"
    file.write_text(page(hostile_rollouts(tmp_path)), "utf-8")
    opened = open_page(file)
    shown = opened.page.locator("#rollouts .rollout pre").all_text_contents()
    assert set(shown) == {escaped(text) for text in WRITABLE}
    assert opened.page.evaluate("window.pwned") is None and opened.page.evaluate("window.violations") == []
    assert opened.page.locator("#rollouts :is(script, img, [onfocus], a)").count() == 0
    assert opened.complaints == []
