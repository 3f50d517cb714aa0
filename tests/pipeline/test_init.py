"""What `init` proposes follows from the whole file, is the same at every call, and can be run as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.conftest import Person
from tests.pipeline.test_own_data import model, talk  # noqa: F401  # a fixture
from tunix_rt import starter
from tunix_rt.traces import look


def write(person: Person, rows: list[Any]) -> None:
    (person.folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def begin(person: Person, model: Path) -> tuple[str, str]:  # noqa: F811
    """What is printed, and the experiment."""
    done = person.types("init", "mine.jsonl", "--model", str(model), "--force")
    assert done.code == 0, done.err
    return done.out, (person.folder / "conf/experiment/mine.yaml").read_text("utf-8")


def prepared(person: Person) -> str:
    done = person.types("traces", "+experiment=mine", "tracking=none")
    assert done.code == 0, done.err
    return done.out


def test_prompts_that_overlap_with_held_out_ones_are_seen_before_training_is(person: Person, model: Path) -> None:  # noqa: F811
    """A text of 13 words in pairs of prompts, of which one is held out and the other is not."""
    pairs = [f"{' '.join(f'w{n}x{place}' for place in range(14))} {end}" for n in range(60) for end in ("?", "please?")]
    write(person, [{"prompt": text, "completion": str(len(text))} for text in pairs])
    out, written = begin(person, model)
    assert "on_overlap: drop_train" in written and "prompts that share text with held-out ones" in out
    assert "left out: overlap" in prepared(person)


@pytest.mark.parametrize("questions", [1, 40])
def test_no_split_is_empty_where_one_question_has_many_answers(person: Person, model: Path, questions: int) -> None:  # noqa: F811
    write(person, [{"prompt": f"{i % questions} + 1?", "completion": f"so\n{i}"} for i in range(120)])
    out, written = begin(person, model)
    assert ("validation: 0.0, test: 0.0" in written) == (questions == 1)
    assert ("the model is asked what it learned" in out) == (questions == 1)
    prepared(person)


def test_a_sample_of_the_whole_file_is_tokenised_and_says_where_it_fails(
    person: Person,
    model: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (look, starter):
        monkeypatch.setattr(module, "KEPT", 60)
    rows = [talk(i, "1") for i in range(70)] + [talk(i, "a<end>b") for i in range(70, 100)]
    write(person, rows)
    out, _ = begin(person, model)
    assert "60 records, drawn from the whole file" in out
    assert "left out: mine.jsonl:" in out and "would be read as a special token" in out
    assert begin(person, model)[0] == out


@pytest.mark.parametrize(
    ("step", "answer", "chosen"),
    [
        ("one step", "two", "from_path}, _self_"),
        ("one step", "two\n  lines", "think_chat"),
        ("two\n\n  lines", "two", 'step_end: "\\n\\n\\n"'),
    ],
)
def test_a_layout_that_holds_steps_and_answers_as_they_are(
    person: Person,
    model: Path,  # noqa: F811
    step: str,
    answer: str,
    chosen: str,
) -> None:
    parts = {"steps": [{"i": 0, "type": "step", "content": step}], "final_answer": answer}
    write(person, [{"trace_version": "1.0", "prompt": f"word {n}?", **parts} for n in range(3)])
    _, written = begin(person, model)
    assert chosen in written
    out = prepared(person)
    assert step.splitlines()[-1] in out and answer in out


def test_a_test_set_beside_the_training_files_is_never_learned(person: Person, model: Path) -> None:  # noqa: F811
    folder = person.folder / "mine"
    folder.mkdir()
    for split, count in (("train", 60), ("test", 20)):
        rows = [{"prompt": f"{split} {i}?", "completion": str(i)} for i in range(count)]
        (folder / f"{split}-00000-of-00001.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "dataset_infos.json").write_text('{"description": "x"}')
    done = person.types("init", "mine", "--model", str(model))
    assert done.code == 0, done.err
    assert "files of train" in done.out and "mine/test-00000-of-00001.jsonl" in done.out
    assert "80: 60 train, 20 test" in done.out
    shown = person.types("traces", "+experiment=mine", "-n", "80", "--json", "tracking=none")
    assert shown.code == 0, shown.err
    prompts = [trace["prompt"] for trace in json.loads(shown.out)["traces"]]
    assert len(prompts) > 50 and not any("test" in prompt for prompt in prompts)
    (folder / "test-00000-of-00001.jsonl").write_text('{"prompt": "a published test set without answers"}\n')
    done = person.types("init", "mine", "--model", str(model), "--force")
    written = (person.folder / "conf/experiment/mine.yaml").read_text("utf-8")
    assert done.code == 0 and "on_invalid: skip" in written and "test: {" not in written
    assert prepared(person)


def test_what_is_accepted_can_be_prepared(person: Person, model: Path) -> None:  # noqa: F811
    """Rows in which nothing is learned, columns whose names YAML takes for booleans; and a file of long rows alone."""
    rows = [talk(i, "1") for i in range(40)]
    for row in rows[:20]:
        row["messages"][-1]["weight"] = 0
    write(person, rows)
    assert "on_no_target: drop" in begin(person, model)[1]
    prepared(person)
    write(person, [{"no": f"{i} + 1?", "yes": "so"} for i in range(40)])
    assert (
        person.types(
            "init", "mine.jsonl", "--model", str(model), "--columns", "prompt=no", "completion=yes", "--force"
        ).code
        == 0
    )
    prepared(person)
    write(person, [{"prompt": f"{i} + 1?", "completion": "so " * 5000} for i in range(40)])
    long = person.types("init", "mine.jsonl", "--model", str(model), "--force")
    assert long.code == 2 and "every trace is too long" in long.err
