"""What an experiment may be called, and whether a person means a file of this machine or a data set of the hub."""

from __future__ import annotations

import re
from pathlib import Path

from tunix_rt.config.folders import EXPERIMENT, config_folders, files
from tunix_rt.errors import InputError
from tunix_rt.traces.data_files import COMPRESSIONS, SUFFIXES

YAML_WORDS = "null none true false yes no on off y n nan inf".split()
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,79}")
"""What YAML, Hydra's command line and every file system take for a name."""
HUB = re.compile(r"[\w.-]+/[\w.-]+")


def experiment_name(given: str | None, source: str) -> str:
    """The name that was asked for, else one made of the file's.

    Raises InputError for one that cannot be typed on a command line, or that would hide a shipped experiment.
    """
    shipped = _shipped()
    if given is None:
        found = re.sub(r"[^a-z0-9]+", "_", Path(source.rstrip("/")).name.split(".")[0].lower()).strip("_")[:60]
        return found if _usable(found) and found not in shipped else f"mine_{found}".rstrip("_")
    if not _usable(given):
        raise InputError(
            f"--name={given!r}: expected a letter, then letters, digits, _ or - (no folder, no blank, at most 80; no "
            "word that YAML reads as a value, such as true)"
        )
    if given in shipped:
        raise InputError(f"--name={given}: would hide the shipped experiment of that name; choose another")
    return given


def _usable(name: str) -> bool:
    return NAME.fullmatch(name) is not None and name.lower() not in YAML_WORDS


def _shipped() -> set[str]:
    """Names of the installed experiments; none if `conf/` of the working directory is the installed one."""
    folders = config_folders()
    return files(EXPERIMENT, folders[1:])


def is_local(source: str) -> bool:
    """Whether a source names files of this machine, also if they are not there: anything but ORG/NAME is a path, and
    so is what has the suffix of a data file or lies in a folder that is there.
    """
    path = Path(source)
    if path.exists() or not HUB.fullmatch(source) or path.parent.is_dir():
        return True
    compressed = {kind for kind, _ in COMPRESSIONS.values()}
    return any(suffix.lower() in {*SUFFIXES, *compressed} for suffix in path.suffixes)
