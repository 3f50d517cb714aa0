"""Serve the trained model of a run, or of two side by side: an OpenAI-compatible endpoint, and a chat page.

Any client of OpenAI's interface can ask it, at http://127.0.0.1:8000/v1; see docs/serving.md. With a token, in the
variable TUNIX_RT_SERVE_TOKEN or in a file, only clients that know it are answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunix_rt.commands import Parser

LAST_PORT = 2**16 - 1


def main(arguments: Sequence[str]) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    parser = Parser("serve", __doc__, "run", "--root")
    parser.add_argument("other", nargs="?", help="a second run, for comparison")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; another than loopback needs a token")
    parser.add_argument("--port", type=int, default=8000, help="0: one that is free (default: 8000)")
    parser.add_argument("--rows", type=int, default=16, help="answers written at once (default: 16)")
    parser.add_argument("--queue", type=int, default=64, help="answers that may wait; more get 503 (default: 64)")
    parser.add_argument("--max-tokens", type=int, help="most tokens of an answer (default: the model's positions)")
    parser.add_argument("--token-file", type=Path, help="file with the token that clients must know")
    chosen = parser.parse(arguments)
    for name in ("rows", "queue", "max_tokens"):
        if (number := getattr(chosen, name)) is not None and number < 1:
            parser.error(f"--{name.replace('_', '-')} {number}: at least 1")
    if not 0 <= chosen.port <= LAST_PORT:
        parser.error(f"--port {chosen.port}: from 0 to {LAST_PORT}")

    from tunix_rt.experiment import answerer
    from tunix_rt.runs.folder import find_run
    from tunix_rt.serving.server import Limits, listen, model_of, read_token, serve

    runs = [chosen.run, *([find_run(chosen.root, chosen.other)] if chosen.other else [])]
    if len({run.name for run in runs}) < len(runs):
        parser.error(f"{runs[0].name} is named twice")
    token = read_token(chosen.token_file)
    listening = listen(chosen.host, chosen.port, token)
    limits = Limits(chosen.rows, chosen.queue, chosen.max_tokens)
    serve([model_of(run, answerer(run), limits) for run in runs], listening, token)
    return 0
