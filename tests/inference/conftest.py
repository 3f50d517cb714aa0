"""A model folder with a character tokenizer, and a backend whose answers are scripted, to make it fail at will."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import config_of
from tunix_rt.backends.interface import Piece
from tunix_rt.batches.encoded import Int32
from tunix_rt.batches.reader import Reader
from tunix_rt.config.results import GenerationConfig
from tunix_rt.models.initialise import write_fresh
from tunix_rt.models.tokenizer import Tokenizer, train_char


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    train_char([], "0123456789*+=;", folder)
    tokenizer = Tokenizer.load(folder)
    source = config_of().model.source
    write_fresh(folder, source, tokenizer.vocab_size, 0, tokenizer.pad_id, tokenizer.end_id)  # type: ignore[arg-type]
    return folder


@pytest.fixture
def reader(model_folder: Path) -> Reader:
    return Reader.of(model_folder, config_of().format)


class Scripted:
    """Answers every prompt with `reply(prompt text)`, in two pieces; an exception in it is a device failure.

    As with a real one the last digits depend on the batch: here on its rows, its longest prompt and its declared size.
    """

    def __init__(self, reader: Reader, reply: Callable[[str], str]) -> None:
        self.reader, self.reply = reader, reply
        self.asked: list[str] = []

    def generate(
        self, state: Any, prompts: Sequence[Int32], generation: GenerationConfig, seeds: Sequence[int]
    ) -> Iterator[Piece]:
        logprob = -0.5 - len(prompts) / 64 - max(map(len, prompts)) / 1024 - generation.batch_size / 4096
        for index, prompt in enumerate(prompts):
            text = self.reader.tokenizer.decode(prompt.tolist())
            self.asked.append(text)
            ids = np.array(self.reader.tokenizer.encode(self.reply(text)).ids, np.int32)
            logprobs = np.full(len(ids), logprob, np.float32)
            middle = len(ids) // 2
            yield Piece(index, ids[:middle], logprobs[:middle], None)
            yield Piece(index, ids[middle:], logprobs[middle:], "stop")
