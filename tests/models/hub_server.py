"""As much of the Hugging Face hub as its client asks for a model: a listing, and files, some behind a login."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_of_somebody_with_access"
REVOKED = "hf_that_was_revoked"
INVALID = "Invalid credentials in Authorization header"
"""The hub's words for a token that it does not know."""


class Hub(ThreadingHTTPServer):
    """Serves one folder as the repository `someone/small` at `COMMIT`; listings of a gated one are public."""

    folder: Path
    gated: bool = False
    asked: list[tuple[str, str | None]]
    """Path and `Authorization` of each request."""


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path, login = urlsplit(self.path).path, self.headers["Authorization"]
        self.server.asked.append((path, login))
        match path.strip("/").split("/"):
            case ["api", "models", "someone", "small", "tree", revision] if revision == COMMIT:
                self._send(json.dumps(self._listing()).encode())
            case ["api", "models", "someone", "small", "revision", "main"]:
                self._send(json.dumps({"id": "someone/small", "sha": COMMIT}).encode())
            case ["api", "models", "someone", "small", *_]:
                self._refuse(404, "RevisionNotFound")
            case ["someone", "small", "resolve", _, name]:
                if login == f"Bearer {REVOKED}":
                    self._refuse(401, "")
                elif self.server.gated and login != f"Bearer {TOKEN}":
                    self._refuse(403 if login else 401, "GatedRepo")
                else:
                    self._send((self.server.folder / name).read_bytes(), body)
            case _:
                self._refuse(401, "RepoNotFound")

    def _listing(self) -> list[dict[str, object]]:
        files = sorted(self.server.folder.iterdir())
        return [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": _etag(f.read_bytes())} for f in files]

    def _send(self, content: bytes, body: bool = True) -> None:
        self.send_response(200)
        for header, value in (("X-Repo-Commit", COMMIT), ("ETag", f'"{_etag(content)}"')):
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _refuse(self, code: int, word: str) -> None:
        self.send_response(code)
        self.send_header(*(("X-Error-Code", word) if word else ("X-Error-Message", INVALID)))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


def _etag(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@contextmanager
def serving(folder: Path) -> Iterator[Hub]:
    """The folder, on a free port of this machine, while the block runs."""
    with Hub(("127.0.0.1", 0), _Answer) as server:
        server.folder, server.asked, server.daemon_threads = folder, [], True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
