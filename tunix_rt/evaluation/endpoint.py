"""Questions to an OpenAI-compatible endpoint (`/chat/completions`), each asked once: replies are kept in a file.

Several may be asked at once; what is replied to one does not depend on the others.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tunix_rt.errors import MachineError
from tunix_rt.files import JsonObject, read_appended, sha256_bytes, to_json

TRIES = 4
BUSY = (408, 409, 429, 500, 502, 503, 504)
"""HTTP statuses after which the same request may succeed."""
PAUSE = 1.0
"""Seconds before the second try; doubled before each further one."""


@dataclass(slots=True)
class Endpoint:
    """A model behind a URL, and the file with its replies."""

    url: str
    key_variable: str | None
    kept: Path
    seconds: float
    _replies: dict[str, str] = field(default_factory=dict)
    _read: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, requests: Sequence[JsonObject], at_once: int) -> None:
        """Ask what was not asked before, `at_once` requests at a time, and keep each reply as soon as it is there.

        Raises MachineError for the first one without a reply; those behind it are not begun.
        """
        self._read_kept()
        missing = {name: request for request in requests if (name := _name(request)) not in self._replies}
        pool = ThreadPoolExecutor(at_once)
        try:
            for _ in pool.map(self.reply, missing.values()):
                pass
        finally:
            pool.shutdown(cancel_futures=True)

    def reply(self, request: JsonObject) -> str:
        """The text of the reply to a request, from the file if it was asked before. Raises MachineError."""
        self._read_kept()
        name = _name(request)
        if name not in self._replies:
            reply = self._asked(request)
            with self._lock:
                self._keep({"request": name, "model": request["model"], "reply": reply})
                self._replies[name] = reply
        return self._replies[name]

    def _read_kept(self) -> None:
        with self._lock:
            if not self._read:
                self._replies = {line["request"]: line["reply"] for _, line in self._lines()}
                self._read = True

    def _lines(self) -> list[tuple[int, JsonObject]]:
        return list(read_appended(self.kept)) if self.kept.exists() else []

    def _keep(self, line: JsonObject) -> None:
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        with self.kept.open("a", encoding="utf-8") as file:
            file.write(to_json(line) + "\n")

    def _asked(self, request: JsonObject) -> str:
        problem: object = None
        for attempt in range(TRIES):
            time.sleep(PAUSE * 2 ** (attempt - 1) if attempt else 0)
            try:
                return self._post(request)
            except urllib.error.HTTPError as error:
                problem = f"HTTP {error.code}: {error.read(500).decode('utf-8', 'replace')}"
                if error.code not in BUSY:
                    break
            except (OSError, http.client.HTTPException, KeyError, IndexError, TypeError, ValueError) as error:
                problem = error
        what = f"judge: {self.url} gives no reply ({problem})"
        raise MachineError(f"{what}; the same command again goes on: what was judged is in {self.kept}")

    def _post(self, request: JsonObject) -> str:
        headers = {"Content-Type": "application/json"}
        if self.key_variable is not None:
            headers["Authorization"] = f"Bearer {os.environ.get(self.key_variable, '')}"
        target = f"{self.url.rstrip('/')}/chat/completions"
        made = urllib.request.Request(target, to_json(request).encode(), headers)  # noqa: S310 (checked: http or https)
        with urllib.request.urlopen(made, timeout=self.seconds) as response:  # noqa: S310
            return str(json.loads(response.read())["choices"][0]["message"]["content"] or "")


def _name(request: JsonObject) -> str:
    """What a request is kept under."""
    return sha256_bytes(to_json(request).encode())[:32]
