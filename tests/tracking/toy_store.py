"""A tracker in forty lines: `toy://me:PASSWORD@host/FILE` is a file of JSON lines, one per call. It prints its URI."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tunix_rt.tracking.store import Entry, Facts, Status, Store, Table
from tunix_rt.tracking.tail import Point


class ToyStore(Store):
    def _write(self, call: str, value: Any) -> None:
        with Path(urlsplit(self.uri).path).open("a") as file:
            file.write(json.dumps([call, value]) + "\n")

    def open(self, entry: Entry) -> str:
        print(f"View run {entry.name} at: {self.uri}")
        self._write("open", [entry.name, entry.parent])
        return entry.name

    def params(self, facts: Facts) -> None:
        self._write("params", facts.parameters)

    def metrics(self, points: Sequence[Point]) -> None:
        self._write("metrics", points)

    def artifact(self, name: str, content: Path | str) -> None:
        self._write("artifact", name)

    def table(self, table: Table) -> None:
        self._write("table", table.rows)

    def close(self, status: Status, ended: int | None) -> None:
        self._write("close", status)

    @classmethod
    def ui_command(cls, uri: str, folder: Path) -> str:
        return f"less {urlsplit(uri).path}"
