"""An experiment that begins from another one's model: both are checked together, before anything is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import config_of
from tunix_rt.config.identity import first_stage, identities, plain
from tunix_rt.config.load import check, compose, earlier_of
from tunix_rt.config.model import RunModel
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.errors import ConfigError

BEGINS = ("name=later", "model=run", "tokenizer=pretrained", "model.source.experiment=quickstart")


def source_of(config: ExperimentConfig) -> RunModel:
    assert isinstance(config.model.source, RunModel)
    return config.model.source


def changed(*overrides: str) -> str:
    return f"model.source.overrides=[{','.join(f'{text!r}' for text in overrides)}]"


def message(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config_of((*BEGINS, *overrides))
    return str(caught.value)


def test_it_has_backend_hardware_tracking_seed_and_folders_of_the_one_that_begins_from_it() -> None:
    words = ("backend=torch", "hardware=cpu", "tracking=none", "seed=3", "run.root=there", "run.new=true")
    config = config_of((*BEGINS, *words, changed("optimizer.learning_rate=1e-4", "run.stop_step=5")))
    earlier = earlier_of(config, source_of(config))
    for section in ("backend", "hardware", "tracking", "seed"):
        assert getattr(earlier, section) == getattr(config, section), section
    assert (earlier.training.seed, earlier.run.root, earlier.run.new, earlier.run.stop_step) == (3, "there", False, 5)
    assert (earlier.name, earlier.optimizer.learning_rate) == ("quickstart", 1e-4)
    assert earlier.model == config_of().model


def test_a_record_is_repeated_from_itself_whatever_the_files_say_now(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(BEGINS)
    monkeypatch.setattr("tunix_rt.config.load.compose", lambda _: pytest.fail("composed again"))
    assert check(plain(config)) == config


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model.source.experiment=quickstat"], "model.source.experiment: no 'quickstat'; did you mean 'quickstart'?"),
        (["model.source.experiment=???"], "model.source.experiment: missing"),
        ([changed("modl=nano")], "model.source (quickstart) modl: unknown key; did you mean 'model'?"),
        ([changed("model=nanoo")], "model.source.overrides: model: no 'nanoo'; did you mean 'nano'?"),
        ([changed("backend=torch")], "an earlier experiment has the backend of the one it is for"),
        ([changed("run.root=x")], "an earlier experiment has the run.root of the one it is for"),
        ([changed("seed=1")], "an earlier experiment has the seed of the one it is for; write training.seed=…"),
        ([changed("training=none")], "it trains no model to begin from"),
        (["format=chat"], "format.kind: a fresh model's tokenizer has no chat template"),
        (["dataset.max_length=200", "training.row_length=200"], "200 exceeds model.source.max_position_embeddings 128"),
        (["tokenizer=char"], "tokenizer.kind: pretrained weights go with their own tokenizer"),
    ],
)
def test_what_cannot_be_begun_from(overrides: list[str], expected: str) -> None:
    assert expected in message(*overrides)


def test_all_mistakes_of_both_are_in_one_message() -> None:
    said = message(changed("training.max_steps=-1", "optimizer.learning_rat=3"), "generation.temperature=-1")
    assert said.splitlines()[0] == "3 mistakes in the config:"
    for expected in ("generation.temperature: ", "(quickstart) training.max_steps: ", "(quickstart) optimizer.learn"):
        assert expected in said


def test_what_is_inherited_is_wrong_once() -> None:
    assert message("seed=-1") == "seed: got -1, expected greater than or equal to 0"


def experiment(name: str, begins_from: str) -> None:
    Path("conf/experiment").mkdir(parents=True, exist_ok=True)
    lines = ["# @package _global_", "defaults:", "  - override /model: run", "  - override /tokenizer: pretrained"]
    lines += [f"name: {name}", f"model: {{source: {{experiment: {begins_from}}}}}"]
    Path(f"conf/experiment/{name}.yaml").write_text("\n".join(lines), "utf-8")


def test_a_circle_is_one_line_and_a_chain_is_none(work: Path) -> None:
    for name, begins_from in {"a": "b", "b": "a", "c": "d", "d": "quickstart"}.items():
        experiment(name, begins_from)
    with pytest.raises(ConfigError, match=r"a circle: b begins from a begins from b; one of them") as caught:
        config_of(["+experiment=a"])
    assert "\n" not in str(caught.value)
    third = config_of(["+experiment=c", "seed=5"])
    second = earlier_of(third, source_of(third))
    first = earlier_of(second, source_of(second))
    assert [second.name, first.name, first.training.seed] == ["d", "quickstart", 5]
    assert source_of(third).drawn == source_of(second).drawn == plain(first.model.source)


def test_what_decides_its_model_is_no_detail_of_execution() -> None:
    """Prevents: `reproduce` with another start, and two sweeps that differ in it in one folder."""
    assert [first_stage(f"model.source.{key}") for key in ("experiment", "overrides", "config")] == ["prepare"] * 3


def test_what_changes_no_model_there_changes_nothing_here() -> None:
    """Prevents: another cadence of checkpoints of the earlier one training the later one again."""
    digests = {"model.source": "what its training is identified by"}
    found = [
        identities(config_of([*BEGINS, f"model.source.overrides=['{override}']"]), digests)
        for override in ("checkpoint.keep=7", "generation.batch_size=7", "optimizer.learning_rate=0.5")
    ]
    assert found[0] == found[1] == found[2]
    assert found[0] != identities(config_of(BEGINS), {"model.source": "another training"})


def test_dvc_gets_a_stage_only_where_there_is_one() -> None:
    assert compose([])["run"]["dvc_first"] == []
    assert compose(list(BEGINS))["run"]["dvc_first"] == ["quickstart"]
    assert config_of(BEGINS).run.dvc_model == source_of(config_of(BEGINS)).dvc_path


@pytest.mark.parametrize(
    ("overrides", "reader"),
    [
        (("objective=dpo",), "format"),
        (("objective=dpo", changed("format.reader=boxed")), "boxed"),
        (("objective=dpo", "format.reader=marker"), "marker"),
        (("objective=dpo", "format.step_end=' '"), "auto"),
        (("objective=grpo", "objective.rollout.max_new_tokens=8"), "format"),
        (("objective=sft",), "auto"),
    ],
)
def test_answers_to_texts_are_read_as_where_they_were_learned(overrides: tuple[str, ...], reader: str) -> None:
    """Prevents: 0 % of answers that are all right, since text in a file made `auto` look for them."""
    files = ("dataset=files", "dataset.name=own", "dataset.source.train.path=own.jsonl", "training.row_length=null")
    config = config_of((*BEGINS, *files, *overrides))
    assert config.format.reader == reader
    assert check(plain(config)) == config
