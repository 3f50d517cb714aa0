"""A config of which nothing is trained: what counts, what is read, and what is said of what does not fit."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from tests.conftest import config_of
from tunix_rt.config.change import asked_as_it_is, asks_otherwise
from tunix_rt.config.identity import identities, plain
from tunix_rt.config.load import check
from tunix_rt.errors import ConfigError

MODEL = ("model=from_path", "model.source.path=base", "tokenizer=pretrained", "format=chat")
FILES = ("dataset=files", "dataset.name=mine")
BOTH = (*FILES, "dataset.source.train.path=train.jsonl", "dataset.source.test.path=test.jsonl")
ASKED = ("training=none", *MODEL, *FILES, "dataset.source.test.path=test.jsonl")


@cache
def chain(*words: str) -> dict[str, str]:
    return identities(config_of([*ASKED, *words]), {"model.source": "m", "dataset.source.test": "d"})


def test_what_only_a_training_would_use_changes_no_identity() -> None:
    words = ("optimizer.learning_rate=0.5", "schedule=constant", "training=smoke", "training.max_steps=0")
    more = ("training.select=best_accuracy", "generation.baseline=true", "dataset.source.train.path=train.jsonl")
    assert chain(*words, *more, "model/adapter=lora") == chain()


@pytest.mark.parametrize(
    ("word", "first"),
    [
        ("dataset.limit.test=3", "prepare"),
        ("backend=torch", "predict"),
    ],
)
def test_what_an_answer_depends_on_does(word: str, first: str) -> None:
    before, now = chain(), chain(word)
    assert next(stage for stage in before if before[stage] != now[stage]) == first


def test_how_the_matrices_are_held_and_which_adapter_is_on_them_counts() -> None:
    held = chain("model/adapter=lora", "model.adapter.quantize=nf4")
    assert held["train"] != chain()["train"]
    config = config_of([*ASKED, "model/adapter=lora", "model.adapter.path=there"])
    one, other = (identities(config, {"model.adapter": content}) for content in "ab")
    assert one["prepare"] == other["prepare"] and one["train"] != other["train"]


def test_the_split_that_is_asked_is_read_alone_where_it_has_a_source_of_its_own() -> None:
    source: Any = config_of(["training=none", *MODEL, *BOTH]).dataset.source
    assert source.train is None and source.test.path == "test.jsonl"
    carved: Any = config_of(["training=none", *MODEL, *BOTH, "dataset.source.test=null"]).dataset.source
    assert carved.train.path == "train.jsonl", "the prompts are held out of it"
    words = ["training=none", *MODEL, "dataset=huggingface", "dataset.name=h", "dataset.source.name=a/b"]
    hub: Any = config_of([*words, "dataset.source.revision=main"]).dataset.source
    assert (hub.train, hub.test) == (None, "test")
    part = "{kind: files, train: {path: train.jsonl}, test: {path: test.jsonl}}"
    mixed: Any = config_of(
        [
            "training=none",
            *MODEL,
            "dataset=mixture",
            "dataset.name=m",
            f"dataset.source.sources={{a: {{source: {part}}}}}",
        ]
    ).dataset.source
    assert mixed.sources["a"].source.train is None
    trained: Any = config_of(
        ["training=none", *BOTH, "format=lines"]  # a tokenizer that is trained needs the traces
    ).dataset.source
    assert trained.train.path == "train.jsonl"


def test_all_of_generated_problems_may_be_asked_if_none_is_trained_on() -> None:
    words = ["dataset.split.test=1.0", "dataset.split.validation=0.0"]
    assert config_of(["training=none", *words]).dataset.split.test == 1.0
    with pytest.raises(ConfigError, match="something must be left to train on"):
        config_of(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("training=none", *MODEL, *FILES), r"dataset\.source\.test: nothing to ask: dataset\.source\.test\.path=FILE"),
        ((*MODEL, *FILES, "dataset.source.train=null"), r"nothing to train on: .*\(training=none\)"),
    ],
)
def test_without_data_it_says_what_is_missing(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(words)


RECORDED = plain(config_of(["generation.baseline=true"]))
OPENED = {"model": {"source": {"kind": "folder", "path": "runs/a/b/model"}, "adapter": None}}
OPENED |= {"tokenizer": {"kind": "pretrained", "added_tokens": []}}


def test_a_trained_model_is_asked_other_data_in_the_format_it_was_trained_with() -> None:
    words = ["dataset=files", "dataset.name=new", "dataset.source.test.path=new.jsonl", "generation.max_new_tokens=9"]
    assert asks_otherwise(words) and not asks_otherwise(words[-1:])
    config = check(asked_as_it_is(RECORDED, words, OPENED))
    assert not config.training.trains and not config.generation.baseline
    assert (config.format.kind, config.format.reader) == ("plain", "format"), "its answers are read as ever"
    assert (config.dataset.name, config.generation.max_new_tokens) == ("new", 9)
    assert config.optimizer == config_of().optimizer, "what it was trained with stays to be read"
    assert check(plain(config)) == config


def test_what_makes_another_model_is_refused_with_the_way_on() -> None:
    words = ["model=mini", "tokenizer=bpe", "training.max_steps=3", "optimizer.learning_rate=1", "seed=3"]
    with pytest.raises(ConfigError) as error:
        asked_as_it_is(RECORDED, ["dataset.limit.test=2", *words], OPENED)
    said = str(error.value).split("; ")
    for key, why in {
        "model": "the model is that of the run",
        "tokenizer": "a trained model has its own tokenizer",
        "training.max_steps": "the run's training is done",
        "optimizer.learning_rate": "the run's training is done",
        "seed": "say which: dataset.seed, generation.seed",
    }.items():
        assert f"{key}: not among what can be changed here: {why}" in said
    assert "dataset" not in str(error.value).partition("seed")[0]
