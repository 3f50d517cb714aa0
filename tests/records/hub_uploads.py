"""As much of the Hugging Face hub as its client asks for an upload: repositories, commits, large files apart."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

TOKEN = "hf_of_somebody_who_may_write"
OWNER = "someone"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    """What was committed to it."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)


class Hub(ThreadingHTTPServer):
    """Repositories of one user; files that end in .safetensors go the way of large ones."""

    repositories: dict[str, Repository]
    blobs: dict[str, bytes]
    """Large files by their sha256."""
    logins: list[str | None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        sha256 = urlsplit(self.path).path.rpartition("/")[2]
        self.server.blobs[sha256] = self._body()
        self._send({})

    def _answer(self) -> None:
        body, login = self._body(), self.headers["Authorization"]
        self.server.logins.append(login)
        if login != f"Bearer {TOKEN}":
            self._send({"error": "Invalid username or password."}, 401)
            return
        match urlsplit(self.path).path.strip("/").split("/"):
            case ["api", "whoami-v2"]:
                self._send({"name": OWNER, "type": "user", "orgs": []})
            case ["api", "repos", "create"]:
                self._create(json.loads(body))
            case ["api", "validate-yaml"]:
                self._send({"errors": [], "warnings": []})
            case ["api", "models", owner, name]:
                found = self.server.repositories[f"{owner}/{name}"]
                self._send({"id": f"{owner}/{name}", "private": found.private, "sha": COMMIT, "siblings": []})
            case ["api", "models", _, _, "preupload", "main"]:
                self._send({"files": [_mode(file["path"]) for file in json.loads(body)["files"]]})
            case [owner, name, "info", "lfs", "objects", "batch"]:
                self._send({"transfer": "basic", "objects": [self._place(one) for one in json.loads(body)["objects"]]})
            case ["api", "models", owner, name, "commit", "main"]:
                self._commit(f"{owner}/{name}", [json.loads(line) for line in body.splitlines()])
            case other:
                self._send({"error": f"not known here: {other}"}, 404)

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or OWNER}/{asked['name']}"
        there = name in self.server.repositories
        self.server.repositories.setdefault(name, Repository(asked.get("visibility") == "private"))
        url = f"{self.server.url}/{name}"
        self._send({"url": url, "name": name} | ({"error": "there already"} if there else {}), 409 if there else 200)

    def _place(self, one: dict[str, Any]) -> dict[str, Any]:
        return one | {"actions": {"upload": {"href": f"{self.server.url}/blobs/{one['oid']}"}}}

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.server.repositories[name].files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.repositories[name].files[value["path"]] = self.server.blobs[value["oid"]]
        self._send({"commitUrl": f"{self.server.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT, "success": True})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = b""
        while size := int(self.rfile.readline().strip(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _send(self, value: object, code: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


def _mode(path: str) -> dict[str, Any]:
    large = path.endswith(".safetensors")
    return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}


@contextmanager
def serving() -> Iterator[Hub]:
    """An empty hub on a free port of this machine, while the block runs."""
    with Hub(("127.0.0.1", 0), _Answer) as server:
        server.repositories, server.blobs, server.logins, server.daemon_threads = {}, {}, [], True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
