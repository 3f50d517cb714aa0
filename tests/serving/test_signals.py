"""The end of a server by a signal, while it answers."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time

import httpx
import pytest

from tests.conftest import ROOT
from tests.serving.ruled_server import ENDLESS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("tokens", [30, ENDLESS])
def test_a_signal_ends_it_in_order(number: signal.Signals, tokens: int) -> None:
    """Within its grace: an answer that ends meanwhile is given whole, another ends with an error; exit code 0."""
    lines, code, said = _interrupted([number], tokens, grace=2)
    assert (code, said) == (0, "ended\n")
    assert lines[-1] == "data: [DONE]" if tokens == 30 else "the server is ending" in lines[-1]


def test_a_second_interrupt_waits_for_no_answer() -> None:
    lines, code, said = _interrupted([signal.SIGINT, signal.SIGINT], ENDLESS, grace=600)
    assert (code, said) == (0, "ended\n") and "DONE" not in lines[-1]


def _interrupted(numbers: list[signal.Signals], tokens: int, grace: int) -> tuple[list[str], int, str]:
    """What a stream says, the exit code and the rest of stderr, when signals come after the first chunk."""
    command = [sys.executable, "-m", "tests.serving.ruled_server", str(grace)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stderr is not None
        url = next(found[1] for line in process.stderr if (found := re.search(r"endpoint at (\S+)/v1", line)))
        given = {"model": "ruled", "prompt": "abc", "max_tokens": tokens, "stream": True}
        lines: list[str] = []
        with httpx.stream("POST", f"{url}/v1/completions", json=given, timeout=30) as response:
            try:
                for line in filter(None, response.iter_lines()):
                    if len(lines) in (0, 10) and numbers:
                        process.send_signal(numbers.pop(0))
                    lines.append(line)
            except httpx.RemoteProtocolError:
                lines.append("cut")
        begun = time.monotonic()
        code = process.wait(30)
        assert time.monotonic() - begun < 10
        return lines, code, process.stderr.read()
