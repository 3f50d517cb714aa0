"""A small form of `teaching_arithmetic`: a scratchpad teaches with fewer examples than plain sums do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pipeline.conftest import Person

EXPERIMENT = "teaching_arithmetic"


@pytest.fixture
def person(work: Path, capfd: pytest.CaptureFixture[str]) -> Person:
    return Person(work, capfd)


@pytest.mark.acceptance
@pytest.mark.timeout(3600)
def test_a_scratchpad_teaches_with_fewer_examples(person: Person) -> None:
    grid = ("dataset.source.wording=plain,detailed_scratchpad", "dataset.limit.train=250,1000", "seed=0,1")
    done = person.starts(f"+experiment={EXPERIMENT}", *grid, "dataset.limit.test=100", timeout=3000)
    assert done.code == 0, done.err
    print(done.out)
    curves = json.loads((person.sweep(EXPERIMENT) / "curves.json").read_text("utf-8"))
    means = {(point["line"], point["x"]): point["mean"] for point in curves["points"]}
    assert means["plain", 1000] < 0.2 < 0.6 < means["detailed_scratchpad", 1000]
    assert all(len(point["values"]) == 2 for point in curves["points"])
    files = list((person.folder / "runs" / EXPERIMENT).glob("*/items.jsonl"))
    asked = {tuple(json.loads(line)["id"] for line in file.read_text("utf-8").splitlines()) for file in files}
    assert (len(files), len(asked)) == (8, 1), "every member is asked the same sums"
