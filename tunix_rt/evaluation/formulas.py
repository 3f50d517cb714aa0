"""The child process behind the scorer `math`: huggingface/Math-Verify, which reads formulas with SymPy."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from tunix_rt.evaluation.child import serve
from tunix_rt.files import JsonObject

MEMORY = 4 * 2**30
DIGITS = 12
"""Decimals that two values must share (Math-Verify's own 6 calls 3.141593 π)."""


def respond(request: JsonObject) -> JsonObject:
    """Whether the two formulas of a request are the same one."""
    from math_verify import verify

    reference, answer = _read(request["reference"]), _read(request["answer"])
    if not reference or not answer:
        return {"read": False}
    return {"read": True, "equal": verify(reference, answer, float_rounding=DIGITS, timeout_seconds=None)}


@lru_cache(maxsize=1_000)
def _read(text: str) -> list[Any]:
    """What Math-Verify finds in a formula; it looks for mathematical delimiters."""
    from math_verify import parse

    delimited = text if "\\boxed" in text or "$" in text else f"${text}$"
    return list(parse(delimited, parsing_timeout=None))


if __name__ == "__main__":
    import math_verify  # noqa: F401  (imported before the first request, whose time is limited)

    logging.disable(logging.CRITICAL)
    serve(respond, MEMORY)
