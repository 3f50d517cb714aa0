"""The conversation in the terminal, over a model that is made of rules."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import cast

from tests.serving.conftest import RuledEngine
from tunix_rt.inference.answer import Answerer
from tunix_rt.inference.conversation import Conversation


def test_all_questions_are_asked_in_one_batch(ruled_answerer: Callable[[], Answerer]) -> None:
    """Opening one may copy the weights, and it keeps what was read of the conversation; a refused question is none."""
    answerer, shown = ruled_answerer(), io.StringIO()
    talk = Conversation(answerer, shown)
    for question in ("ab!", "Ä", "xy!"):
        talk.try_to_ask(question)
    assert shown.getvalue().startswith("ab\n") and "xy\n" in shown.getvalue()
    (batch,) = cast(RuledEngine, answerer.engine).batches
    assert batch.free == 1
