"""A batch over `generate`, with a backend that does not keep its promise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest

from tests.conftest import config_of
from tunix_rt.backends.interface import Backend, Piece, Request
from tunix_rt.backends.waves import Waves
from tunix_rt.errors import RunError


class Forgetful:
    """It ends the first answer, and says nothing more of the others."""

    def generate(self, *_: Any) -> Iterator[Piece]:
        ids, logprobs = np.zeros(1, np.int32), np.zeros(1, np.float32)
        yield Piece(0, ids, logprobs, "stop")
        yield Piece(1, ids, logprobs, None)


def test_an_answer_without_an_end_is_an_error() -> None:
    """Who waits for it would wait forever."""
    batch = Waves(cast(Backend, Forgetful()), None, 2)
    for index in (7, 8):
        batch.add(Request(index, np.ones(3, np.int32), config_of().generation, 0))
    assert [piece.index for piece in (*batch.step(), *batch.step())] == [7, 8]
    with pytest.raises(RunError, match="left 1 answers without an end"):
        batch.step()
    assert batch.step() == [] and batch.free == 2
