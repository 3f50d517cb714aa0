"""The plot library in report.html, as vl-convert bundles it.

`python -m tests.browser.vega` renews it after vl-convert's pin in `pyproject.toml` changed.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import vl_convert

import tunix_rt.report.html
from tunix_rt.report.html.embed import VEGA

VEGA_LITE = "6.4"
FILE = Path(tunix_rt.report.html.__path__[0]) / "static" / VEGA


def bundle() -> bytes:
    """Vega, Vega-Lite and Vega-Embed as one script that defines `vega`, `vegaLite` and `vegaEmbed`."""
    script: str = vl_convert.javascript_bundle(vl_version=VEGA_LITE)
    return script.encode("utf-8")


if __name__ == "__main__":
    FILE.write_bytes(gzip.compress(bundle(), 9, mtime=0))
