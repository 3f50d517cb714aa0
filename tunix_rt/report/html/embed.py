"""What is packed into the page: data as compressed JSON, scripts and styles with the hashes that let them run.

Data is in the page as base64 of gzip of ASCII JSON, an alphabet in which no markup can be written.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from tunix_rt.errors import DataError

LEVEL = 6
"""Of gzip; 9 takes thrice as long for 2 % less."""
SCRIPTS = ("text.js", "answers.js", "filters.js", "list.js", "detail.js", "rollouts.js", "charts.js", "main.js")
STYLES = ("base.css", "result.css", "list.css", "detail.css", "rollouts.css", "charts.css", "media.css")
VEGA = "vega.js.gz"
"""Vega, Vega-Lite and Vega-Embed as vl-convert bundles them: `python -m tests.browser.vega` renews it."""


def packed(value: Any) -> str:
    """A JSON value as text for a script block. The same value gives the same text."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("ascii"), LEVEL, mtime=0)).decode("ascii")


def unpacked(page: str, name: str) -> Any:
    """The value that a page holds under `name` (`answers`, `tokens`, `rollouts`, `charts`), for programs that read it.

    Raises DataError if there is none.
    """
    found = re.search(rf'<script type="application/gzip" id="data-{re.escape(name)}">([A-Za-z0-9+/=]*)</script>', page)
    if found is None:
        raise DataError(f"report.html: no data {name!r} in it; write it again with `python -m tunix_rt report RUN`")
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


@cache
def static(name: str) -> str:
    """The text of a file of `static/`."""
    return files(__package__).joinpath("static", name).read_text("utf-8")


@cache
def vega() -> tuple[str, str]:
    """The plot library: base64 of its compressed script, and the hash that lets it run once it is decompressed."""
    data = files(__package__).joinpath("static", VEGA).read_bytes()
    return base64.b64encode(data).decode("ascii"), integrity(gzip.decompress(data))


def integrity(source: bytes) -> str:
    """The source expression of an inline script or style in a Content-Security-Policy (CSP level 3, 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source).digest()).decode('ascii')}'"


def policy(scripts: list[str], styles: list[str]) -> str:
    """A Content-Security-Policy under which only these run, and nothing is fetched from anywhere."""
    own = " ".join([*(integrity(script.encode()) for script in scripts), vega()[1]])
    styled = " ".join(integrity(style.encode()) for style in styles)
    # `data:` is for the empty icon, without which a browser asks the server of the page for one.
    return (
        f"default-src 'none'; script-src {own}; style-src {styled}; img-src data:; base-uri 'none'; form-action 'none'"
    )
