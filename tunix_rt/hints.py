"""Commands suggested to the user, in a form that works in the shell at hand; and where results go.

Returns text; independent of runs and configs.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tunix_rt.config.choices import BACKENDS
from tunix_rt.terminal import say

CHECKOUT = Path(__file__).resolve().parents[1]


def command(words: Sequence[str]) -> str:
    """`words` (a program of this environment and its arguments) as a line to paste into the shell at hand.

    `uv run` is prepended if this program was started that way. A program of an environment that is not activated is
    given by its path.
    """
    program, rest = words[0], words[1:]
    if "UV_RUN_RECURSION_DEPTH" in os.environ:
        return shlex.join(["uv", "run", program, *rest])
    place = Path(sys.executable).with_name(program)
    activated = str(place.parent) in os.environ.get("PATH", "").split(os.pathsep)
    if sys.prefix != sys.base_prefix and not activated:
        program = os.path.relpath(place) if place.is_relative_to(Path.cwd()) else str(place)
    return shlex.join([program, *rest])


def tunix_rt(*words: str) -> str:
    """A command of ours to paste: `tunix_rt("ask", "last")`."""
    return command(["python", "-m", "tunix_rt", *words])


def install(extra: str) -> str:
    """The command that adds an extra to what is installed: in a checkout by its lock, elsewhere by pip.

    One that conflicts with the group `dev` gets an environment that has nothing else.
    """
    if not _in_checkout():
        return f"pip install 'tunix_rt[{extra}]'"
    apart = any(facts.apart for facts in BACKENDS.values() if facts.extra == extra)
    return f"uv sync {'--no-dev' if apart else '--inexact'} --extra {extra}"


def _in_checkout() -> bool:
    return (CHECKOUT / "pyproject.toml").exists()


def missing_module(error: ModuleNotFoundError) -> str | None:
    """What to do if a package that we need is not installed; None if the module is one of ours or Python's."""
    name = (error.name or "").partition(".")[0]
    if not name or name == "tunix_rt" or name in sys.stdlib_module_names:
        return None
    if not _in_checkout():
        return f"the package {name!r} is not installed for {sys.executable}: pip install tunix_rt"
    where = os.path.relpath(CHECKOUT)
    activate = shlex.quote(str(Path(where) / ".venv" / "bin" / "activate"))
    project = "" if where == "." else f"--project {shlex.quote(where)} "
    return (
        f"the package {name!r} is not installed for {sys.executable}: "
        f"type `uv run {project}python -m tunix_rt …`, or activate the environment: . {activate}"
    )


def say_folders(root: str, data: str) -> None:
    """Print where runs and data go, only while there are no runs yet."""
    if not Path(root).exists():
        say(f"runs go to {Path(root).absolute()}, prepared data to {Path(data).absolute()}")
