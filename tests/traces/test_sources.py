"""Every kind of source gives its records with their places; what cannot be read says what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from tunix_rt.config.dataset import ArithmeticSource, FilesSource, HuggingfaceSource
from tunix_rt.errors import DataError, MachineError, MissingExtra
from tunix_rt.traces.messages import Rules
from tunix_rt.traces.sources import (
    Record,
    Rejected,
    content_digest,
    has_split,
    parts_of,
    read_source,
    source_files,
)

GOOD = '{"prompt": "1+1=", "steps": [], "final_answer": "2"}\n'


@pytest.fixture
def data(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "data.jsonl"
        path.write_bytes(content)
        return path

    return write


def hub(folder: Path, **changed: Any) -> HuggingfaceSource:
    values = {
        "kind": "huggingface",
        "name": str(folder),
        "subset": None,
        "revision": "abc",
        "train": "train",
        "validation": None,
        "test": None,
        "adapter": "gsm8k",
    }
    return HuggingfaceSource(**(values | changed))


def test_a_generated_record_stands_at_its_id(arithmetic: Callable[..., ArithmeticSource]) -> None:
    found = list(read_source(*parts_of(arithmetic(num_traces=3)), "train", 0, Rules()))
    assert [item.where for item in found] == [item.trace.id for item in found if isinstance(item, Record)]
    assert source_files(arithmetic()) == []


def test_a_bad_line_is_yielded_with_file_line_and_reason(
    data: Callable[[bytes], Path], jsonl: Callable[..., FilesSource]
) -> None:
    lines = GOOD.encode() + b'\n{"prompt": "x"}\n[1]\n\xff\n{"prompt": "1+2=", "steps": [], "final_'
    path = data(lines)
    first, *bad = read_source(*parts_of(jsonl(path)), "train", 0, Rules())
    assert isinstance(first, Record) and first.where == f"{path}:1"
    assert [item.where for item in bad] == [f"{path}:{n}" for n in (3, 4, 5, 6)]
    reasons = [item.reason for item in bad if isinstance(item, Rejected)]
    for reason, expected in zip(
        reasons, ("final_answer: missing", "a JSON list", "not UTF-8", "not valid JSON"), strict=True
    ):
        assert expected in reason and str(path) in reason


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty, expected records"), (b"\n \n", "empty"), (b"\x1f\x8b\x08\0\0", "damaged after record 0")],
)
def test_a_file_without_records_is_named(
    data: Callable[[bytes], Path], jsonl: Callable[..., FilesSource], content: bytes, message: str
) -> None:
    path = data(content)
    with pytest.raises(DataError, match=message) as caught:
        list(read_source(*parts_of(jsonl(path)), "train", 0, Rules()))
    assert str(path) in str(caught.value)


def test_a_missing_file_says_where_it_can_be_had_and_how_to_name_it(
    tmp_path: Path, jsonl: Callable[..., FilesSource]
) -> None:
    source = jsonl(tmp_path / "no.jsonl", test=tmp_path / "neither.jsonl", origin="github.com/someone/data")
    with pytest.raises(DataError) as caught:
        list(read_source(*parts_of(source), "test", 0, Rules()))
    assert str(caught.value) == (
        f"{tmp_path}/neither.jsonl: no such file; download it from github.com/someone/data; "
        f"say where it lies with dataset.source.test.path=FILE"
    )
    with pytest.raises(DataError, match="a folder without data files"):
        list(read_source(*parts_of(jsonl(tmp_path)), "train", 0, Rules()))


def test_only_named_splits_have_a_source_of_their_own(
    tmp_path: Path, jsonl: Callable[..., FilesSource], arithmetic: Callable[..., ArithmeticSource]
) -> None:
    source = jsonl(tmp_path / "a", test=tmp_path / "b")
    assert [has_split(source, split) for split in ("train", "validation", "test")] == [True, False, True]
    assert [(file.split, file.path) for file in source_files(source)] == [
        ("train", tmp_path / "a"),
        ("test", tmp_path / "b"),
    ]
    assert not has_split(arithmetic(), "test")


@pytest.fixture
def hub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set as the `datasets` library loads it from a folder, its second row without an answer."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    rows = [{"question": "Q1", "answer": "a\n#### 1", "level": 3}, {"question": "Q2", "answer": None, "level": None}]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_data_set_of_the_datasets_library_is_read_row_by_row(hub_folder: Path) -> None:
    good, bad = read_source(*parts_of(hub(hub_folder)), "train", 0, Rules())
    assert isinstance(good, Record) and (good.trace.prompt, good.trace.final_answer) == ("Q1", "1")
    assert good.trace.meta == {"level": 3}
    assert good.where == f"{hub_folder}@abc:train[0]"
    assert isinstance(bad, Rejected) and bad.reason.startswith(f"{hub_folder}@abc:train[1]: answer: missing")


def test_a_split_that_the_data_set_lacks_is_the_users_mistake(hub_folder: Path) -> None:
    with pytest.raises(DataError, match=r"split 'none': ValueError: Unknown split \"none\".*\['train'\]"):
        list(read_source(*parts_of(hub(hub_folder, train="none")), "train", 0, Rules()))


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match="install the extra `huggingface`"):
        list(read_source(*parts_of(hub(tmp_path)), "train", 0, Rules()))


def test_without_a_network_one_line_says_how_to_get_the_file(tmp_path: Path) -> None:
    program = """
from tunix_rt.config.dataset import HuggingfaceSource
from tunix_rt.errors import MachineError
from tunix_rt.traces.messages import Rules
from tunix_rt.traces.sources import parts_of, read_source
source = HuggingfaceSource(kind="huggingface", name="someone/something", subset="main", revision="abc", train="train",
                           validation=None, test=None, adapter="gsm8k")
try:
    list(read_source(*parts_of(source), "train", 0, Rules()))
except MachineError as error:
    print(error)
"""
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("dataset.source: someone/something at abc, split 'train', cannot be loaded (")
    assert "datasets.load_dataset('someone/something', 'main', revision='abc', split='train')" in line
    assert "dataset=files dataset.source.train.path=train.jsonl dataset.source.train.adapter=gsm8k" in line
    assert line.endswith("name its commit, which needs no network: dataset.source.revision=COMMIT")


def test_a_local_folder_of_the_datasets_library_is_known_by_its_bytes(hub_folder: Path) -> None:
    """Prevents: a Parquet file put in the place of another, and the same command saying 'finished before'."""
    before = content_digest(hub(hub_folder))
    assert content_digest(hub(hub_folder)) == before is not None
    with (hub_folder / "train.jsonl").open("a") as file:
        file.write('{"question": "Q3", "answer": "#### 3"}\n')
    assert content_digest(hub(hub_folder)) != before
    assert len(list(read_source(*parts_of(hub(hub_folder)), "train", 0, Rules()))) == 3


def test_a_branch_of_a_data_set_is_the_commit_that_the_cache_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents: new rows of a branch under the identity of the old ones."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refs = tmp_path / "datasets--someone--rows" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("a" * 40)
    assert content_digest(hub(Path("someone/rows"), revision="main")) == "a" * 40
    assert content_digest(hub(Path("someone/rows"), revision="b" * 40)) is None, "the config says it"
    with pytest.raises(MachineError, match=r"dataset\.source\.revision=COMMIT"):
        content_digest(hub(Path("someone/rows"), revision="other"))
