"""Tokenizers, and sections of the config with values that a test changes one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Inner

from tests.traces.templates import Make
from tunix_rt.config.dataset import (
    ArithmeticSource,
    DataFile,
    DatasetConfig,
    FilesSource,
    LimitConfig,
    LossWeights,
    SplitConfig,
)
from tunix_rt.models.folder import write_generation_config
from tunix_rt.models.tokenizer import Tokenizer, train_char


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A character tokenizer with a chat template."""

    def build(template: str | None, *, special: Sequence[str] = (), stops: Sequence[int] = (1,)) -> Tokenizer:
        folder = tmp_path_factory.mktemp("tokenizer")
        train_char(["abc"], None, folder)
        if special:
            inner = Inner.from_file(str(folder / "tokenizer.json"))
            inner.add_special_tokens(list(special))
            inner.save(str(folder / "tokenizer.json"))
        if template is not None:
            (folder / "chat_template.jinja").write_text(template, "utf-8")
        write_generation_config(folder, tuple(stops), 0)
        return Tokenizer.load(folder)

    return build


@pytest.fixture(scope="session")
def arithmetic() -> Callable[..., ArithmeticSource]:
    def make(**changed: Any) -> ArithmeticSource:
        values = {
            "kind": "arithmetic",
            "version": 1,
            "operation": "multiply",
            "digits": (2, 2),
            "wording": "symbols",
            "steps": "full",
            "num_traces": None,
        }
        return ArithmeticSource(**(values | changed))

    return make


@pytest.fixture(scope="session")
def jsonl() -> Callable[..., FilesSource]:
    def make(train: Path, adapter: Any = "trace", test: Path | None = None, **changed: Any) -> FilesSource:
        own = None if test is None else DataFile(path=str(test), adapter=changed.pop("test_adapter", adapter))
        return FilesSource(
            kind="files",
            version=1,
            train=DataFile(path=str(train), adapter=adapter),
            validation=None,
            test=own,
            origin=changed.pop("origin", None),
        )

    return make


@pytest.fixture(scope="session")
def dataset() -> Callable[..., DatasetConfig]:
    def make(source: Any, **changed: Any) -> DatasetConfig:
        values = {
            "name": "example",
            "source": source,
            "split": SplitConfig(validation=0.0, test=0.0),
            "limit": LimitConfig(train=None, validation=None, test=None),
            "max_length": None,
            "steps": "keep",
            "loss_weights": LossWeights(prompt=0, previous_turns=0, steps=1, answer=1, end=1),
            "on_invalid": "error",
            "on_duplicate": "error",
            "on_overlap": "error",
            "overlap_ngram": 13,
            "on_overlong": "error",
            "on_no_target": "error",
        }
        return DatasetConfig(**(values | changed))

    return make
