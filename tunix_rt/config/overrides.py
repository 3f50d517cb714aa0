"""Command-line words before Hydra sees them: what is wrong with an override, and what was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tunix_rt.config.folders import EXPERIMENT, choices

NEEDS_MULTIRUN = re.compile(r"(?:Ambiguous value for argument|Sweep parameters) '\+*(.*?)'(?: 1\. To use| requires)")
"""Hydra's message for several values without `-m`."""


MEANT = {"training=none": ("++training.max_steps=0",)}
"""What a choice says by itself, and an experiment's own values would undo: they come after the groups' files."""


def check_overrides(overrides: Sequence[str], folders: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Check command-line overrides before Hydra does.

    Returns the mistakes in choices of groups, and the other overrides with values forced in (`++`), so that
    a misspelt key reaches our check, which names all of them, instead of Hydra's, which stops at the first.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    groups = {path.relative_to(folder).as_posix() for folder in folders for path in folder.rglob("*") if path.is_dir()}
    mistakes: list[str] = []
    kept: list[str] = []
    for text in overrides:
        key = why = ""
        try:
            override = OverridesParser.create().parse_override(text)
            key = str(override.key_or_group)
        except HydraException as error:
            why = f" ({str(error).splitlines()[0]})" if "=" in text else ""
        if not key:
            meant = _quoted(text) or _in_quotes(text) or f"{experiment_meant(text, folders)}; the form is key=value"
            mistakes.append(f"{text!r} is not an override{why}{meant}")
        elif key in groups and not override.is_delete():
            if wrong := _wrong_choices(key, override, folders):
                mistakes += wrong
            else:
                kept.append(f"+{text}" if text.startswith(f"{EXPERIMENT}=") else text)
                kept += MEANT.get(text, ())
        elif override.is_delete() or text.startswith("+") or key.split(".")[0].split("/")[0] == "hydra":
            kept.append(text)
        else:
            kept.append(f"++{text}")
    return mistakes, kept


def _quoted(text: str) -> str:
    """What to type in the place of a list of overrides without quotes, `key=[a=1,b=2]`; empty if it is none."""
    key, _, value = text.partition("=")
    items = value.removeprefix("[").removesuffix("]").split(",")
    if f"[{','.join(items)}]" != value or not all(
        re.fullmatch(r"[^=\[\]{}'\"]+=[^=\[\]{}'\"]*", item) for item in items
    ):
        return ""
    inner = ",".join(f'"{item.strip()}"' for item in items)
    return f"; each override in the list is in quotes: '{key}=[{inner}]'"


def _in_quotes(text: str) -> str:
    """That a value needs quotes, as a path with = or ü does; empty if something else is wrong."""
    key, _, value = text.partition("=")
    plain = re.fullmatch(r"\+{0,2}\w[\w./]*", key) and not re.search(r"[\[\]{}'\"]", value)
    return f"; such a value is in quotes: '{key}=\"{value}\"'" if plain and value else ""


def experiment_meant(word: str, folders: Sequence[Path]) -> str:
    """`; did you mean +experiment=…?` if a bare word resembles the name of an experiment."""
    close = difflib.get_close_matches(word, choices(EXPERIMENT, folders), n=1, cutoff=0.75)
    return f"; did you mean +{EXPERIMENT}={close[0]}?" if close else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing if no known word is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def hydra_message(error: Exception) -> str:
    """Hydra's message in one line; for several values without `-m`, what to do."""
    text = " ".join(str(error).split())
    found = NEEDS_MULTIRUN.search(text)
    return text if found is None else f"{found[1]}: several values are a sweep, which needs -m (a list is [A,B])"


def _wrong_choices(group: str, override: Any, folders: Sequence[Path]) -> list[str]:
    """A line for each name that the group does not have."""
    from hydra.core.override_parser.types import Glob

    known, value = choices(group, folders), override.value()
    if isinstance(value, Glob):
        there = f"{group}: {override.input_line.partition('=')[2]} matches none of {', '.join(known)}"
        return [] if value.filter(known) else [there]
    given = value if isinstance(value, list) else [value]
    if not given:
        return [f"{group}: an empty list chooses nothing (there are: {', '.join(known)})"]
    if numbers := [item for item in given if isinstance(item, int | float) and str(item) in known]:
        return [f"{group}: {numbers[0]} is read as a value, not as a name; rename the file {numbers[0]}.yaml"]
    names = override.sweep_string_iterator() if override.is_sweep_override() else map(str, given)
    nothing = "null" if override.is_add() or group == EXPERIMENT else "None"  # of a group that may be empty
    names = ["null" if name == "None" else name for name in names] if nothing == "null" else names
    return [
        f"{group}: no {name!r}{_choice_meant(group, name, known, folders)} (there are: {', '.join(known)})"
        for name in names
        if name.removesuffix(".yaml") not in known and name != "None"
    ]


def _choice_meant(group: str, name: str, known: Sequence[str], folders: Sequence[Path]) -> str:
    """The shortest name with this prefix that needs no download; else the nearest name."""
    begun = sorted(
        (item for item in known if item.startswith(name)), key=lambda item: (_hub(group, item, folders), len(item))
    )
    return f"; did you mean {begun[0]!r}?" if name and begun else nearest(name, known)


def _hub(group: str, name: str, folders: Sequence[Path]) -> bool:
    """Whether a choice has to be downloaded from a hub."""
    files = (folder / group / f"{name}.yaml" for folder in folders)
    return "kind: hub" in next((file.read_text("utf-8") for file in files if file.exists()), "")
