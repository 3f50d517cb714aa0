"""What cannot be learned from is found before the model that it is for is trained."""

from __future__ import annotations

import json

import pytest

from tests.conftest import TOY
from tests.pipeline.conftest import Person

PAIR = {"prompt": "1+1=", "chosen": "2", "rejected": "3"}
SMALL = [word for word in TOY if not word.startswith(("hardware", "tracking"))]
FIRST = f"model.source.overrides={json.dumps(SMALL)}"
BEGUN = ("model=run", "model.source.experiment=quickstart", FIRST, "tokenizer=pretrained", "backend=torch", *TOY)
DATA = (
    "dataset=files",
    "dataset.name=mine",
    "dataset.source.train.path=mine.jsonl",
    "+dataset.source.test.path=mine.jsonl",
    "dataset.on_overlap=allow",
    "dataset.split.validation=0",
)


@pytest.mark.parametrize(
    ("record", "objective", "expected"),
    [
        ({"chosen": "4"}, "dpo", "mine.jsonl:2: rejected: missing"),
        ({"chosen": "4", "rejected": "4"}, "dpo", "mine.jsonl:2: chosen and rejected are the same"),
        ({}, "grpo", "mine.jsonl:2: expected_answer: missing"),
    ],
)
def test_one_line_and_no_run(person: Person, record: dict[str, str], objective: str, expected: str) -> None:
    """A pair without a loser, one whose answers are the same, a prompt without an answer."""
    adapter = "preference" if objective == "dpo" else "evaluation_set"
    records = [{**PAIR, "expected_answer": "2"}, {"prompt": "2+2=", **record}]
    (person.folder / "mine.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in records), "utf-8")
    done = person.types(*BEGUN, *DATA, f"dataset.source.train.adapter={adapter}", f"objective={objective}")
    assert done.code == 2, done.err
    (line,) = (line for line in done.err.splitlines() if line.startswith("error: "))
    assert expected in line
    assert not (person.folder / "runs/quickstart").exists()
