"""DVC: installed, used here, and is its remote there?"""

from __future__ import annotations

import configparser
import socket
from pathlib import Path
from urllib.parse import urlsplit

from tunix_rt.doctor.finding import Finding, Place, installed
from tunix_rt.hints import install
from tunix_rt.runs.secrets import mask

PORTS = {"http": 80, "https": 443, "ssh": 22, "sftp": 22, "webdav": 80, "webdavs": 443}
"""Addresses whose server can be asked for a connection without a client of its kind."""


def findings(place: Place) -> list[Finding]:
    """The program, and the default remote of the folder that this is run in."""
    if not installed("dvc"):
        return [Finding("DVC", "absent", "not installed; only `dvc repro` needs it", install("dvc"))]
    folder = next((at / ".dvc" for at in (Path.cwd(), *Path.cwd().parents) if (at / ".dvc").is_dir()), None)
    if folder is None:
        return [Finding("DVC", "absent", "not set up in this folder", "dvc init")]
    return [Finding("DVC", "works", f"set up in {folder.parent}"), _remote(folder, place.seconds)]


def _remote(folder: Path, seconds: float) -> Finding:
    settings = configparser.ConfigParser(interpolation=None)
    try:
        settings.read([folder / "config", folder / "config.local"])
    except (configparser.Error, OSError, UnicodeError) as error:
        return Finding(
            "DVC's remote", "broken", f"{folder / 'config'}: {' '.join(str(error).split())}", "dvc config -l"
        )
    name = settings.get("core", "remote", fallback=None)
    if name is None:
        return Finding("DVC's remote", "absent", "none is set; `dvc push` needs one", "dvc remote add -d NAME URL")
    url = settings.get(f"'remote \"{name}\"'", "url", fallback="")
    text, parts = f"{name}: {mask(url)}", urlsplit(url)
    if parts.scheme in PORTS:
        try:
            address = (parts.hostname or "", parts.port or PORTS[parts.scheme])
            socket.create_connection(address, timeout=min(seconds, 3.0)).close()
        except OSError as error:
            return Finding(
                "DVC's remote", "broken", f"{text}: not reachable ({error.strerror or error})", "dvc remote list"
            )
    elif not parts.scheme and not (folder / url).exists():
        return Finding("DVC's remote", "absent", f"{text}: no such folder yet", "dvc push makes it")
    return Finding("DVC's remote", "works", text)
