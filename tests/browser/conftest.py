"""A real Chromium, the system's own: `browser` tests open files in it, as a person does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.report.made import hostile_run, made_run
from tunix_rt.report.html.page import page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]
RECORDER = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.blockedURI));
"""


@dataclass(slots=True)
class Opened:
    """An open page, and what happened in it."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """Errors and warnings of the console, uncaught exceptions."""

    @property
    def count(self) -> str:
        """What the status line says."""
        return self.page.get_by_role("status").inner_text()

    def listed(self) -> list[str]:
        """The prompts of the rows that exist, in order."""
        return self.page.locator("#rows [role=option] .row-prompt").all_inner_texts()

    def draw_charts(self) -> None:
        """Scroll to every chart, and wait until it is drawn."""
        for figure in self.page.locator("figure.chart").all():
            figure.scroll_into_view_if_needed()
            figure.locator(".plot svg").wait_for()

    def choose(self, name: str, value: str) -> None:
        """Choose a value of a filter."""
        self.page.get_by_role("combobox", name=name, exact=True).select_option(value)


Open = Callable[..., Opened]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One for all tests."""
    from playwright.sync_api import sync_playwright

    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "no Chromium: `apt-get install chromium`, or name one in the variable CHROMIUM"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=QUIET)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open a file in a fresh profile; wait until the answers are listed, or `complete`, with their tokens."""
    opened = []

    def open_file(
        file: Path, width: int = 1280, height: int = 900, scheme: str = "light", complete: bool = True
    ) -> Opened:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # type: ignore[arg-type]
        )
        opened.append(context)
        context.add_init_script(RECORDER)
        found = Opened(context.new_page())
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.page.on(
            "console", lambda said: found.complaints.append(said.text) if said.type in ("error", "warning") else None
        )
        found.page.goto(file.as_uri())
        found.page.wait_for_selector("html[data-ready]")
        if complete:
            found.page.wait_for_selector("html[data-tokens]")
        return found

    yield open_file
    for context in opened:
        context.close()


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files: `one` run with what it was before training, `samples` of it, `two` runs, a `hostile` one."""
    folder = tmp_path_factory.mktemp("pages")
    runs = {
        "one": (made_run(folder, prompts=60), None),
        "samples": (made_run(folder, prompts=20, samples=4, baseline=None, name="samples"), None),
        "two": (made_run(folder, prompts=60, accuracy=0.9, name="left"), made_run(folder, prompts=60, name="right")),
        "hostile": (hostile_run(folder), None),
    }
    written = {}
    for name, (run, other) in runs.items():
        written[name] = folder / f"{name}.html"
        written[name].write_text(page(run, other), "utf-8")
    return written
