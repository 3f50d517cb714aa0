"""The chat page of `serve` in Chromium: by keyboard alone, two runs side by side, and what a model writes is text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import RECORDER, Opened
from tests.serving.conftest import Served, ruled_answerer, serve_ruled  # noqa: F401 (fixtures)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
DONE = "html:not([data-busy]) .answer[aria-busy=false]"
Chat = Callable[..., Opened]


@pytest.fixture
def chat(browser: Browser) -> Iterator[Chat]:
    """Open the page of a server, in a fresh profile."""
    contexts = []

    def open_page(served: Served, scheme: str = "light") -> Opened:
        context = browser.new_context(viewport={"width": 1100, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
        contexts.append(context)
        context.add_init_script(RECORDER)
        found = Opened(context.new_page())
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.page.goto(served.url)
        return found

    yield open_page
    for context in contexts:
        context.close()


def ask(opened: Opened, question: str) -> None:
    opened.page.keyboard.type(question)
    opened.page.keyboard.press("Enter")
    opened.page.wait_for_selector(f"{DONE} .parts *")


def test_by_keyboard_alone(serve_ruled: Callable[..., Served], chat: Chat) -> None:  # noqa: F811
    """A question, and from token to token: how probable each was, and what else was likely."""
    opened = chat(serve_ruled())
    opened.page.wait_for_selector("html[data-ready]")
    ask(opened, "1=2!")
    card = opened.page.get_by_role("article", name="Answer of ruled/0123")
    assert card.locator(".tokens").inner_text() == "1=2" and "3 tokens" in card.inner_text()
    assert card.locator(".result strong").inner_text() == "1=2"
    opened.page.keyboard.press("Shift+Tab")
    assert opened.page.evaluate("document.activeElement.textContent") == "1"
    opened.page.keyboard.press("ArrowRight")
    assert opened.page.evaluate("document.activeElement.textContent") == "="
    rows = card.locator(".likely tr").all_inner_texts()
    assert "77.9 %" in rows[0] and "written" in rows[0] and "13.5 %" in rows[1]
    opened.page.get_by_role("button", name="New").press("Enter")
    assert card.count() == 0
    assert opened.complaints == opened.page.evaluate("window.violations") == []


def test_two_runs_side_by_side(serve_ruled: Callable[..., Served], chat: Chat) -> None:  # noqa: F811
    opened = chat(serve_ruled(names=("one/01", "two/02")))
    opened.page.wait_for_selector("html[data-ready]")
    ask(opened, "<b>1</b>")
    boxes = [card.bounding_box() for card in opened.page.locator(".answer").all()]
    assert len(boxes) == 2 and boxes[0] and boxes[1]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] + boxes[0]["width"] < boxes[1]["x"]
    assert opened.page.locator("#title").inner_text() == "one/01 against two/02"
    assert opened.page.locator("#log b").count() == 0, "what is written is text"
    assert all(url.startswith(opened.page.url) for url in opened.requests)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(serve_ruled: Callable[..., Served], chat: Chat, scheme: str) -> None:  # noqa: F811
    from axe_playwright_python.sync_playwright import Axe

    opened = chat(serve_ruled(), scheme)
    opened.page.wait_for_selector("html[data-ready]")
    ask(opened, "1;2;3!")
    opened.page.keyboard.press("Shift+Tab")
    found = Axe().run(opened.page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"][:200], one["nodes"][0]["failureSummary"]) for one in found] == []


def test_a_token_is_asked_for(serve_ruled: Callable[..., Served], chat: Chat) -> None:  # noqa: F811
    opened = chat(serve_ruled(token="open-sesame"))
    for token in ("wrong", "open-sesame"):
        opened.page.get_by_label("Token", exact=True).wait_for()
        opened.page.get_by_label("Token", exact=True).fill(token)
        opened.page.keyboard.press("Enter")
        if token == "wrong":
            opened.page.get_by_text("not the right one").wait_for()
    opened.page.wait_for_selector("html[data-ready]")
    ask(opened, "12!")
    assert opened.page.locator(".tokens").inner_text() == "12"
