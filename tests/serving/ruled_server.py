"""A server of its own process over a model that is made of rules: `python -m tests.serving.ruled_server GRACE`."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tests.serving import conftest
from tunix_rt.models.tokenizer import Tokenizer, train_char
from tunix_rt.serving import server
from tunix_rt.serving.model import ServedModel
from tunix_rt.serving.scheduler import Scheduler

ENDLESS = 10**6
"""Tokens of an answer that no test waits for."""


def main(grace: float) -> None:
    """Serve until a signal; answers get `grace` seconds to end."""
    server.GRACE, conftest.POSITIONS, conftest.SECONDS = grace, ENDLESS + 10, 0.02  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as name:
        train_char(["!"], " !abc", Path(name))
        (Path(name) / "config.json").write_text(json.dumps({}))
        answerer = conftest.answerer_of(Tokenizer.load(Path(name)))
    model = ServedModel("ruled/0123", 0, answerer, Scheduler(answerer.batch, 4, 8), ENDLESS)
    server.serve([model], server.listen("127.0.0.1", 0, None), None)


if __name__ == "__main__":
    main(float(sys.argv[1]))
