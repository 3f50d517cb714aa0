"""MLflow's tracking URIs: made absolute, checked before the first step, shown without password.

Never imports MLflow, so the training process may use it. The check of a store is one read of a SQLite file, or one
request to a server's REST API, within two seconds.
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
from contextlib import closing, suppress
from http.client import HTTPException
from importlib.metadata import entry_points
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import SplitResult, quote, unquote, urlencode, urlsplit
from urllib.request import Request, urlopen

from tunix_rt import hints
from tunix_rt.errors import ConfigError
from tunix_rt.runs.secrets import mask

SQLITE = "sqlite:///"
SERVERS = ("http", "https")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SQLITE_MAGIC = b"SQLite format 3\0"
BY_NAME = "/api/2.0/mlflow/experiments/get-by-name"
"""https://mlflow.org/docs/latest/rest-api.html#get-experiment-by-name"""
SECONDS = 2.0
HOST, PORT = "127.0.0.1", "5000"
"""Where `ui_command` serves a database."""


def resolve(uri: str, directory: Path) -> str:
    """`uri`, with a relative SQLite file (`sqlite:///mlflow.db`) resolved against `directory`; others unchanged."""
    file = sqlite_file(uri)
    return uri if file is None else f"{SQLITE}{(directory / file).resolve()}"


def sqlite_file(uri: str) -> Path | None:
    """The database file of a SQLite URI, as written; None for any other store."""
    file = uri.removeprefix(SQLITE)
    return None if file in (uri, "", ":memory:") else Path(file)


def is_sqlite(file: Path) -> bool:
    """Whether a file is a SQLite database or still empty (https://www.sqlite.org/fileformat.html, section 1.3)."""
    with file.open("rb") as content:
        return content.read(len(SQLITE_MAGIC)) in (SQLITE_MAGIC, b"")


def ui_command(uri: str) -> str:
    """How to see the runs in a browser: a command that serves them to this machine only, or an address."""
    shown = mask(uri)
    if urlsplit(uri).scheme in SERVERS:
        return shown
    return hints.command(["mlflow", "ui", "--backend-store-uri", shown, "--host", HOST, "--port", PORT])


def address(uri: str) -> str:
    """Where a browser finds the runs: the server, or what `ui_command` starts."""
    return uri.rstrip("/") if urlsplit(uri).scheme in SERVERS else f"http://{HOST}:{PORT}"


def check(uri: str, experiment: str) -> str | None:
    """A line if the store cannot be reached just now. Raises ConfigError for what can never work."""
    parts, stage = _parts(uri), None
    scheme = "databricks" if uri == "databricks" else parts.scheme.partition("+")[0]
    if scheme in ("", "file"):
        if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() not in ("true", "1"):
            raise ConfigError(
                f"tracking.uri {mask(uri)}: MLflow 3 keeps no runs in plain files any more; use "
                "tracking.uri=sqlite:///FILE.db (`mlflow migrate-filestore` takes old runs there)"
            )
    elif (file := sqlite_file(uri)) is not None:
        stage = _stage_in_file(file, experiment)
    elif scheme in DATABASES:
        _check_driver(uri)
    elif scheme in SERVERS:
        try:
            stage = _stage_at_server(parts, experiment)
        except OSError as error:
            reason = getattr(error, "reason", error)
            return f"tracking server {mask(uri)} is not reachable ({getattr(reason, 'strerror', None) or reason})"
    elif scheme not in {"databricks", *(found.name for found in entry_points(group="mlflow.tracking_store"))}:
        known = ", ".join(f"{name}://" for name in (*DATABASES, *SERVERS))
        raise ConfigError(f"tracking.uri {mask(uri)}: MLflow knows no {scheme}:// (it knows {known} and databricks)")
    if stage == "deleted":
        raise ConfigError(deleted(uri, experiment))
    return None


def _parts(uri: str) -> SplitResult:
    try:
        parts = urlsplit(uri)
        if parts.scheme in SERVERS and (not parts.hostname or parts.port == 0):
            raise ValueError("no host or port")
    except ValueError as error:
        raise ConfigError(f"tracking.uri {mask(uri)}: not an address ({error})") from None
    return parts


def _check_driver(uri: str) -> None:
    """Check that the database driver that SQLAlchemy would import is installed. Raises ConfigError."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        url = make_url(uri)
        if url.get_backend_name() == "sqlite":
            raise ConfigError(f"tracking.uri {mask(uri)}: no file, so nothing is kept: sqlite:///FILE.db")
        url.get_dialect().import_dbapi()
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"tracking.uri {mask(uri)}: the database needs the Python package {error.name}, which is not installed: "
            f"install it, or name another driver that is (postgresql+DRIVER://…)"
        ) from None
    except (NoSuchModuleError, ArgumentError) as error:
        raise ConfigError(f"tracking.uri {mask(uri)}: {mask(str(error))}") from None


def _stage_in_file(file: Path, experiment: str) -> str | None:
    """`active`, `deleted`, or None if the file does not have the experiment."""
    if not file.exists():
        return None
    if not file.is_file() or not is_sqlite(file):
        raise ConfigError(f"tracking.uri {SQLITE}{file}: {file}: not a SQLite file; move it away, or name another one")
    reading = f"file:{quote(str(file))}?mode=ro"
    with suppress(sqlite3.Error), closing(sqlite3.connect(reading, timeout=1, uri=True)) as store:
        found = store.execute("select lifecycle_stage from experiments where name = ?", (experiment,)).fetchone()
        return None if found is None else str(found[0])
    return None


def _stage_at_server(parts: SplitResult, experiment: str) -> str | None:
    """The same, from a server. Raises OSError if it does not answer."""
    place = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
    query = urlencode({"experiment_name": experiment})
    request = Request(f"{place}{BY_NAME}?{query}")  # noqa: S310
    user = parts.username or os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = parts.password or os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if user and password:
        word = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
        request.add_header("Authorization", f"Basic {word}")
    elif token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
            return str(json.loads(answer.read())["experiment"]["lifecycle_stage"])
    except HTTPError as error:
        error.close()
        if error.code >= 500:
            raise
    except (HTTPException, ValueError, KeyError, TypeError):  # not an MLflow server; MLflow's own client will say more
        pass
    return None


def deleted(uri: str, experiment: str) -> str:
    """The error message for a deleted experiment."""
    return (
        f"tracking.experiment {experiment!r} is deleted in {mask(uri)}: restore it there "
        "(`mlflow experiments restore`), or name another one with tracking.experiment=NAME"
    )
