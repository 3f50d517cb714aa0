"""Where MLflow keeps what it gets: a tracking URI made absolute, shown without password, opened in a browser.

Text in, text out; knows no run and never imports MLflow, so the training process may use it.
"""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

from tunix_rt.runs.secrets import mask

SQLITE = "sqlite:///"
PORTS = {"http": 80, "https": 443}


def resolve(uri: str, directory: Path) -> str:
    """`uri` with a relative SQLite file (`sqlite:///mlflow.db`) taken from `directory`; others unchanged."""
    file = sqlite_file(uri)
    return uri if file is None else f"{SQLITE}{(directory / file).resolve()}"


def sqlite_file(uri: str) -> Path | None:
    """The database file of a SQLite URI, as it is written there; None for any other store."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def problem(uri: str) -> str | None:
    """One line that says why the store cannot be reached just now, or None. Takes at most two seconds.

    Databases other than SQLite are not asked.
    """
    parts = urlsplit(uri)
    if parts.scheme not in PORTS:
        return None
    try:
        with socket.create_connection((parts.hostname or "", parts.port or PORTS[parts.scheme]), timeout=2):
            return None
    except OSError as error:
        return f"tracking server {mask(uri)} is not reachable ({error.strerror or error})"
