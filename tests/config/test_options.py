"""Every key of the config is documented: derived, complete, and the same in the terminal and in docs/config.md."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import is_dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tunix_rt import __main__ as command_line
from tunix_rt.config.allowed import allowed, unit
from tunix_rt.config.options import Option, options, sections
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.config.section import hints_of, keys_below, members
from tunix_rt.errors import InputError


@pytest.fixture(scope="module")
def every() -> list[Option]:
    return options()


def test_every_key_is_there_and_has_a_sentence(every: list[Option]) -> None:
    """Prevents: a field that nobody explains."""
    declared = {key for key, hint in keys_below(ExperimentConfig) if not is_dataclass(next(iter(members(hint))))}
    assert declared | {key for key in hints_of(ExperimentConfig) if key in ("name", "seed", "debug")} == {
        option.key for option in every if not {"NAME", "N"} & {*option.key.split(".")}
    }
    assert [option.key for option in every if not re.search(r"\w{3}", option.sentence)] == []
    assert [option.key for option in every if not option.allowed or not option.default] == []


def test_every_section_has_a_sentence() -> None:
    assert [section.key for section in sections() if not section.sentence] == []


def test_a_number_says_what_it_counts(every: list[Option]) -> None:
    """Prevents: a limit of 5, of steps or of seconds?"""
    counts = re.compile(r"(_every|_seconds|_steps|_epochs|_length|_tokens|_characters|_samples|batch_size|ngram)$")
    numbers = [option for option in every if re.search(r"number", option.allowed) and counts.search(option.key)]
    assert len(numbers) > 12
    without = [option.key for option in numbers if not option.unit]
    assert without == ["schedule.warmup_steps"], "steps, or a share of them: its sentence says which"


@pytest.mark.parametrize(
    ("key", "words", "counts", "default"),
    [
        ("backend.precision", "`float32`, `bfloat16` or `auto`", "", "float32"),
        ("training.max_steps", "whole number ≥ 0 or `null`", "steps", "1600"),
        ("optimizer.beta1", "number ≥ 0, < 1", "", "0.9"),
        ("schedule.decay_fraction", "number > 0, ≤ 1", "", "0.2 (schedule=wsd)"),
        ("dataset.source.digits", "list of 2: whole number ≥ 1, ≤ 6", "", "[2, 2]"),
        ("model.adapter.target", "`all-linear` or list of text", "", "all-linear (model/adapter=lora)"),
        ("model.source.revision", "text", "", "by file of model"),
        ("training.early_stopping.patience", "whole number > 0", "evaluations", "must be given if its section is"),
        ("dataset.source.validation.path", "text or list of text", "", "must be given if its section is"),
        ("dataset.source.train.path", "text or list of text", "", "must be given if its section is"),
        ("schedule.kind", "`cosine`, `linear`, `constant` or `wsd`", "", "cosine"),
        ("tracking.wait_seconds", "number ≥ 0", "seconds", "5.0"),
    ],
)
def test_a_type_in_words(every: list[Option], key: str, words: str, counts: str, default: str) -> None:
    (option,) = (option for option in every if option.key == key)
    assert (option.allowed, option.unit, option.default) == (words, counts, default)


def test_a_key_of_two_kinds_is_explained_for_each(every: list[Option]) -> None:
    of_path = {option.kinds: option for option in every if option.key == "model.source.path"}
    assert set(of_path) == {("folder",), ("gguf",)}
    assert of_path["folder",].sentence.startswith("The folder")
    (shared,) = (option for option in every if option.key == "schedule.warmup_steps")
    assert shared.kinds == (), "all four kinds have it, and say of it what the first one says"


@pytest.mark.parametrize(
    ("asked", "expected", "absent"),
    [
        ("training", "training.max_steps", "evaluation.steps"),
        ("training.max_steps", "training.max_steps", "training.max_seconds"),
        ("seed", "generation.seed", "training.max_steps"),
        ("lr", "optimizer.learning_rate", "optimizer.beta1"),
        ("parquet", "dataset.source.train.path", "dataset.name"),
        ("training.", "training.select", "name"),
        ("dataset.source.sources.NAME", "dataset.source.sources.NAME.weight", "dataset.source.train.path"),
        ("dataset.source.sources.NAME.weight", "dataset.source.sources.NAME.weight", "dataset.source.sources"),
        ("dataset.source.sources.maths.weight", "dataset.source.sources.NAME.weight", "dataset.source.sources"),
    ],
)
def test_a_path_or_a_word_chooses(asked: str, expected: str, absent: str) -> None:
    keys = [option.key for option in options(asked)]
    assert expected in keys
    assert absent not in keys


def test_an_unknown_word_is_answered_with_the_nearest_key() -> None:
    with pytest.raises(InputError, match=r"no key has 'learning_rte' .* did you mean 'optimizer.learning_rate'\?"):
        options("learning_rte")


def test_the_page_is_that_of_the_code(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    assert command_line.main(["options", "--markdown"]) == 0
    shown = capsys.readouterr().out
    assert shown == (ROOT / "docs" / "config.md").read_text("utf-8"), (
        "python -m tunix_rt options --markdown > docs/config.md"
    )


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["options", "training.max_steps", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found == {
        "key": "training.max_steps",
        "kinds": [],
        "allowed": "whole number ≥ 0 or `null`",
        "unit": "steps",
        "identity": True,
        "sentence": "Optimizer steps; exactly one of `max_steps` and `num_epochs` is given. 0 (`training=none`): "
        "nothing is trained, and the model is asked as it is.",
        "default": "1600",
    }


def test_a_terminal_wraps_sentences_and_never_a_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert command_line.main(["options", "training"]) == 0
    lines = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("training.global_batch_size ") for line in lines)


def test_a_pipe_gets_a_line_for_each_key_without_padding(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["options", "schedule"]) == 0
    shown = capsys.readouterr()
    assert all(line.count("\t") == 3 and "  " not in line for line in shown.out.splitlines())
    assert "(quickstart)" in shown.err


def test_no_sentence_is_about_the_code(every: list[Option]) -> None:
    """Prevents: names that only a reader of the source knows."""
    said = [option.sentence for option in every] + [section.sentence for section in sections()]
    assert not [text for text in said if re.search(r"`[\w/]+\.py`|`(\w+\.)?[A-Z_]{3,}`", text)]


def test_marks_do_not_hide_the_unit() -> None:
    hints = dict(keys_below(ExperimentConfig))
    assert (allowed(hints["hardware.threads"]), unit(hints["hardware.threads"])) == (
        "whole number > 0 or `auto`",
        "threads",
    )
