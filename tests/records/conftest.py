"""A finished run on a file of one's own, made once, and copied into the working directory of each test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import TOY
from tests.pipeline.conftest import Done, Person, made_in
from tunix_rt.runs.folder import RunFolder

WORDS = (
    "dataset=jsonl",
    "name=mine",
    "dataset.name=mine",
    "dataset.source.train.path=mine.jsonl",
    "dataset.split.validation=0.2",
    "dataset.split.test=0.2",
    "backend=torch",
    *TOY,
    "dataset.limit.train=null",
    "generation.baseline=true",
)

Types = Callable[..., Done]


def traces(number: int) -> str:
    """A file of traces `i+i=`."""
    lines = [
        {
            "trace_version": "1.0",
            "prompt": f"{i}+{i}=",
            "steps": [{"i": 0, "type": "step", "content": f"{i}+{i}={2 * i}"}],
            "final_answer": str(2 * i),
        }
        for i in range(number)
    ]
    return "".join(f"{json.dumps(line)}\n" for line in lines)


@pytest.fixture
def person(work: Path, capfd: pytest.CaptureFixture[str]) -> Person:
    return Person(work, capfd)


@pytest.fixture
def types(person: Person) -> Types:
    """The command line, in this process."""
    return person.types


@pytest.fixture(scope="session")
def finished_workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with one finished run."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "mine.jsonl").write_text(traces(60))
    return made_in(folder, *WORDS)


@pytest.fixture
def finished(finished_workplace: Path, work: Path) -> RunFolder:
    """That run, copied into this test's working directory."""
    shutil.copytree(finished_workplace, work, dirs_exist_ok=True)
    (file,) = Path("runs").glob("mine/*/status.json")
    return RunFolder(file.parent)
