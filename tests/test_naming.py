"""Names of experiments that can be typed and hide nothing, and what is a file and what a data set of the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunix_rt import __main__ as command_line
from tunix_rt.config.load import compose
from tunix_rt.errors import ConfigError, InputError
from tunix_rt.naming import experiment_name, is_local


@pytest.mark.parametrize("name", ["../zz", "a/b", "true", "Null", "x y", "My-Exp!", "1", "_a", "", "a" * 81, "é"])
def test_a_name_that_cannot_be_typed_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="expected a letter, then letters"):
        experiment_name(name, "mine.jsonl")


def test_a_shipped_experiment_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="would hide the shipped experiment"):
        experiment_name("quickstart", "mine.jsonl")
    assert experiment_name(None, "gsm8k.jsonl") == "mine_gsm8k"
    (tmp_path / "conf" / "experiment" / "mine.yaml").touch()
    assert experiment_name("mine", "x.jsonl") == "mine", "whether it may be written over is said by --force"
    assert experiment_name("My-Exp_2", "x.jsonl") == "My-Exp_2"


@pytest.mark.parametrize(
    ("file", "name"),
    [("a/My Data (1).jsonl", "my_data_1"), ("12.csv", "mine_12"), ("true.csv", "mine_true"), ("é.csv", "mine")],
)
def test_a_name_is_made_of_the_files(file: str, name: str) -> None:
    assert experiment_name(None, file) == name


def test_a_mistyped_path_is_a_file_and_not_a_data_set_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    for path in ("dta/mine.jsonl", "data/mne", "x/train.csv.gz", "./a", "a/b/c", "mine"):
        assert is_local(path), path
    assert not is_local("openai/gsm8k") and not is_local("org/v1.5-mix")
    assert command_line.main(["init", "dta/mine.jsonl"]) == 2
    assert "dta/mine.jsonl: no such file" in capsys.readouterr().err


def test_a_data_set_that_the_hub_has_not_may_be_a_file_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunix_rt import starter
    from tunix_rt.errors import DataError
    from tunix_rt.traces import hub_data

    def nothing(*_: object) -> None:
        raise DataError("no data set")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub_data, "hub_rows", nothing)
    with pytest.raises(DataError, match="my/data: no such file or folder; as a data set of the hub: no data set"):
        starter.start("my/data", None, "smollm2_135m", {})


def test_a_value_is_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "1.yaml").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="experiment: no 'null'"):
        compose(["+experiment=null"])
    with pytest.raises(ConfigError, match=r"tracking: an empty list chooses nothing \(there are: mlflow, none"):
        compose(["tracking=[]"])
    with pytest.raises(ConfigError, match=r"experiment: 1 is read as a value, not as a name; rename the file 1\.yaml"):
        compose(["+experiment=1"])
