"""Secrets never reach a record: what looks like one, or is one by its variable's name, becomes `***`.

Nothing is decoded or guessed from entropy. Declared config is masked by its values alone (`mask_values`), since it is
read again, and `pad_token` names no secret; names count in variables (`mask_variables`) and other text (`mask`).
"""

from __future__ import annotations

import io
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

URI_VARIABLE = "TUNIX_RT_TRACKING_URI"
"""The environment variable that passes the tracking URI with its password to a sync process; no file contains it."""
MASK = "***"
SHORTEST = 8
"""Minimum length of a secret variable's value to be masked everywhere: a short one like `test` occurs anywhere."""

_NAME = (
    r"(?:(?:[\w.-]*[_.-])?(?:token|password|passwd|passphrase|secret|credentials?|authorization|apikey)"
    r"|[\w.-]*[_.-](?:key|pwd))"
)
NAME = re.compile(rf"(?i){_NAME}")
"""Names whose values are secrets: `HF_TOKEN`, `db.password`, `AWS_SECRET_ACCESS_KEY`; not `max_new_tokens` or `key`."""
_USER_AND_PASSWORD = re.compile(r"(://[^/:@\s\"']{0,256}):[^\s\"']{0,1024}@")
_TOKEN_AS_USER = re.compile(r"(https?://)(?!\*\*\*@)[^/:@\s\"']{1,1024}@")
_IN_QUERY = re.compile(r"(?i)([?&](?:key|sig|signature|[\w.-]*(?:token|secret|password|api[_-]?key))=)[^&\s\"'#]+")
_BARE = r"(?:(?:bearer|basic|token)\s+)?(?:[^\s,;\"'}\])]|[,;\"'}\])](?=[^\s,;\"'}\])]))+"
_VALUE = rf"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|{_BARE}"
_ASSIGNED = re.compile(rf"(?i)(?<![\w.-])([\"']?{_NAME}[\"']?\s*[=:]\s*)(?!\*\*\*)({_VALUE})")
_OPTION = re.compile(rf"(?i)(?<!\S)(--?{_NAME}\s+)(?!\*\*\*|-)(\S+)")
_KNOWN_FORMS = re.compile(
    r"\b(?:hf_\w{20,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|sk-[\w-]{20,}|xox[abprs]-[\w-]{10,}|AKIA[0-9A-Z]{16}"
    r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,})"
)


def mask(text: str) -> str:
    """Text of any origin without secrets: what `mask_values` masks, and what is assigned to secret names
    (`name=…`, `"name": "…"`, `--name …`).
    """
    text = _ASSIGNED.sub(_quoted, _mask_values(text))
    return _OPTION.sub(rf"\1{MASK}", text)


def _mask_values(text: str) -> str:
    secrets = {value for name, value in os.environ.items() if is_secret(name) and len(value) >= SHORTEST}
    for secret in sorted(secrets, key=len, reverse=True):  # a value that contains another one is masked entirely
        text = text.replace(secret, MASK)
    text = _USER_AND_PASSWORD.sub(rf"\1:{MASK}@", text)
    text = _TOKEN_AS_USER.sub(rf"\1{MASK}@", text)
    text = _IN_QUERY.sub(rf"\1{MASK}", text)
    return _KNOWN_FORMS.sub(MASK, text)


def mask_words(words: Iterable[str]) -> list[str]:
    """The words of a command line without secrets: in `name=value` the whole value is masked, spaces included."""
    masked: list[str] = []
    for word in words:
        name, equals, _ = word.partition("=")
        if equals and is_secret(name.lstrip("+~-")):
            masked.append(f"{name}={MASK}")
        elif masked and masked[-1].startswith("-") and "=" not in masked[-1] and is_secret(masked[-1].lstrip("-")):
            masked.append(MASK)
        else:
            masked.append(mask(word))
    return masked


def mask_values(value: Any) -> Any:
    """A text, or JSON data, without secrets in it: passwords in URIs, tokens of well-known forms, and every value of
    a secret variable of this process. Numbers, keys and shape stay, so that a config still composes.
    """
    if isinstance(value, dict):
        return {key: mask_values(item) for key, item in value.items()}
    if isinstance(value, list):
        return [mask_values(item) for item in value]
    return _mask_values(value) if isinstance(value, str) else value


def mask_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Environment variables without secrets: for a secret name, the whole value is masked."""
    return {name: MASK if is_secret(name) else _mask_values(value) for name, value in variables.items()}


def masked_traceback(error: BaseException) -> str:
    """The traceback of an error as Python prints it, without secrets: a message may quote what was typed."""
    return str(mask_values("".join(traceback.format_exception(error))))


@contextmanager
def masked_output() -> Iterator[None]:
    """Mask every line that the block prints: libraries may print URIs with passwords."""
    out, err = _Masked(sys.stdout), _Masked(sys.stderr)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            yield
    finally:
        out.finish()
        err.finish()


class _Masked(io.TextIOBase):
    """A stream whose lines are masked before they are passed on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._line = stream, ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._stream.write(f"{mask_values(line)}\n")
        self._stream.flush()
        return len(text)

    def finish(self) -> None:
        """Pass on a last line without an end; what a logger that kept this stream writes later is dropped."""
        self._stream.write(mask_values(self._line))
        self._stream = io.StringIO()


def password_to_variable(overrides: Sequence[str], key: str, variable: str) -> list[str]:
    """Overrides in which a URI with a password is read from the environment variable, which is set here.

    Hydra records and prints overrides, and some launchers write them to disk for processes that inherit the
    variable.
    """
    kept: list[str] = []
    for text in overrides:
        name, _, value = text.partition("=")
        uri = value.strip("'\"")
        if name.lstrip("+") == key and mask_values(uri) != uri:
            os.environ[variable] = uri
            text = f"{name}=${{oc.env:{variable}}}"
        kept.append(text)
    return kept


def is_secret(name: str) -> bool:
    """Whether a variable or key of this name holds a secret."""
    return NAME.fullmatch(name) is not None


def is_masked(value: Any) -> bool:
    """Whether something in JSON data was masked."""
    if isinstance(value, dict):
        return any(is_masked(item) for item in value.values())
    if isinstance(value, list):
        return any(is_masked(item) for item in value)
    return isinstance(value, str) and MASK in value


def _quoted(found: re.Match[str]) -> str:
    value = found.group(2)
    quote = value[0] if value[0] in "\"'" else ""
    return f"{found.group(1)}{quote}{MASK}{quote}"
