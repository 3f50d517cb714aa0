"""From a person's file to a trained and scored model in two commands, for every shape and every kind of file."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tests.conftest import config_of
from tests.pipeline.conftest import Person
from tests.traces.test_mixture import words, write
from tunix_rt.config.model import FreshModel
from tunix_rt.models.initialise import write_fresh
from tunix_rt.models.tokenizer import Tokenizer, train_bpe

TEMPLATE = (
    "{%- if tools -%}{{ 'system\\n' }}{%- for t in tools -%}{{ t | tojson }}{%- endfor -%}{{ '\\n' }}{%- endif -%}"
    "{%- for m in messages -%}{{ m.role + '\\n' + m.content }}"
    "{%- for c in m.tool_calls or [] -%}{{ '<call>' + c.function | tojson + '</call>' }}{%- endfor -%}"
    "{%- if m.role == 'assistant' -%}{{ '<end>' }}{%- endif -%}{{ '\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'assistant\\n' }}{%- endif -%}"
)
CALL = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


def talk(i: int, text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"{i} + 1?"}, {"role": "assistant", "content": text} | more]}


def tools(i: int) -> dict[str, Any]:
    asked = [{"role": "user", "content": f"{i} + 1?"}, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
    said = [{"role": "tool", "content": str(i + 1)}, {"role": "assistant", "content": f"It is {i + 1}."}]
    return {"messages": [*asked, *said], "tools": [{"name": "add", "parameters": {"type": "object"}}]}


def sharegpt(i: int) -> dict[str, Any]:
    said = [{"from": "human", "value": f"{i} + 1?"}, {"from": "gpt", "value": str(i + 1)}]
    return {"conversations": said, "system": f"Count {i % 3}."}


def preference(i: int) -> dict[str, Any]:
    return {"prompt": f"{i} + 1?", "chosen": str(i + 1), "rejected": "no"}


SHAPES: dict[str, Callable[[int], dict[str, Any]]] = {
    "trace": lambda i: {"prompt": f"{i} + 1?", "steps": [{"i": 0, "content": "so"}], "final_answer": str(i + 1)},
    "gsm8k": lambda i: {"question": f"{i} + 1?", "answer": f"{i}+1=<<{i}+1={i + 1}>>{i + 1}\n#### {i + 1}"},
    "chat": lambda i: talk(i, f"Sum:\n\n    {i} + 1\n\n{i + 1}"),
    "thoughts": lambda i: talk(i, f"It is {i + 1}.\nDone.", reasoning_content=f"{i} + 1\n  is {i + 1}"),
    "tools": tools,
    "sharegpt": sharegpt,
    "alpaca": lambda i: {"instruction": "Add 1.", "input": str(i), "output": f"{i + 1} "},
    "pair": lambda i: {"prompt": f"{i} + 1?", "completion": f"so\n{i + 1}"},
    "trl": lambda i: {"prompt": talk(i, "")["messages"][:1], "completion": talk(i, str(i))["messages"][1:]},
    "solution": lambda i: {"problem": f"{i} + 1?", "solution": f"\\boxed{{{i + 1}}}", "answer": str(i + 1)},
    "reasoning": lambda i: {"question": f"{i} + 1?", "reasoning": "add", "answer": str(i + 1)},
    "preference": preference,
    "own columns": lambda i: {"query": f"{i} + 1?", "response": str(i + 1), "score": float("nan")},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny fresh model, saved with a tokenizer that has a chat template with tools."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    source = config_of(["model=nano", "model.source.max_position_embeddings=512"]).model.source
    assert isinstance(source, FreshModel)
    train_bpe([json.dumps(shape(i)) for shape in SHAPES.values() for i in range(9)], 400, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    tokenizer = Tokenizer.load(folder)
    write_fresh(folder, source, tokenizer.vocab_size, 0, tokenizer.pad_id, tokenizer.end_id)
    return folder


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.slow
def test_two_commands_from_a_file_to_a_scored_model(shape: str, model: Path, person: Person) -> None:
    rows = [SHAPES[shape](i) for i in range(40)]
    (person.folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    started = person.types("init", "mine.jsonl", "--model", str(model))
    assert started.code == 0, started.err
    written = (person.folder / "conf/experiment/mine.yaml").read_text("utf-8")
    assert len(written.splitlines()) <= 13 and "40 user" in started.out
    small = ("backend=torch", "hardware=cpu", "hardware.threads=1", "tracking=none", "training.max_steps=3")
    words = (
        "+experiment=mine",
        *small,
        "training.num_epochs=null",
        "generation.max_new_tokens=4",
        "generation.baseline=false",
    )
    looked = person.types("traces", *words, "-n", "1")
    assert (looked.code == 0 and "1?" in looked.out) or shape == "alpaca", looked.err
    done = person.types(*words, "generation.max_new_tokens=4")
    assert done.code == 0, done.err
    assert person.reads("status.json", "mine")["state"] == "finished"
    assert person.reads("metrics.json", "mine")["accuracy"]["value"] is not None


def _csv(file: Path, rows: list[dict[str, Any]]) -> None:
    with file.open("w", encoding="utf-8-sig", newline="") as table:
        writer = csv.DictWriter(table, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], Any]] = {
    "mine.jsonl": lambda file, rows: file.write_bytes(_lines(rows)),
    "bom.jsonl": lambda file, rows: file.write_bytes(b"\xef\xbb\xbf" + _lines(rows)),
    "mine.json": lambda file, rows: file.write_text(json.dumps(rows, indent=1)),
    "inside.json": lambda file, rows: file.write_text(json.dumps({"version": 1, "data": rows}, indent=1)),
    "mine.jsonl.gz": lambda file, rows: file.write_bytes(gzip.compress(_lines(rows))),
    "mine.jsonl.zst": lambda file, rows: file.write_bytes(pyarrow.Codec("zstd").compress(_lines(rows), asbytes=True)),
    "mine.csv": _csv,
    "mine.parquet": lambda file, rows: pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file),
    "folder/a.jsonl": lambda file, rows: file.write_bytes(_lines(rows)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_traces(name: str, model: Path, person: Person) -> None:
    rows = [{"prompt": f"Wie viel ist\r\n{i} + 1?", "completion": f'"so", é\n{i + 1}'} for i in range(40)]
    file = person.folder / name
    file.parent.mkdir(exist_ok=True)
    WRITERS[name](file, rows)
    source = file.parent if "/" in name else file
    assert person.types("init", str(source), "--name", "mine", "--model", str(model)).code == 0
    shown = person.types("traces", "+experiment=mine", "-n", "40", "--json", "tracking=none")
    assert shown.code == 0, shown.err
    found = {(trace["prompt"], trace["completion"]) for trace in json.loads(shown.out)["traces"]}
    assert found <= {(row["prompt"], row["completion"]) for row in rows} and len(found) > 25


def test_init_says_what_it_cannot_read_and_writes_over_nothing(model: Path, person: Person) -> None:
    (person.folder / "odd.jsonl").write_text('{"a": "x", "b": "y"}\n')
    done = person.types("init", "odd.jsonl", "--model", str(model))
    assert done.code == 2 and "no known shape has the fields a, b" in done.err
    assert person.types("init", "odd.jsonl", "--model", str(model), "--columns", "prompt=a", "completion=b").code == 0
    again = person.types("init", "odd.jsonl", "--model", str(model), "--columns", "prompt=a", "completion=b")
    assert again.code == 2 and "--force" in again.err
    wrong = person.types("init", "odd.jsonl", "--columns", "prompt")
    assert wrong.code == 2 and "expected FIELD=COLUMN" in wrong.err
    nothing = person.types("init", "nothing.jsonl")
    assert nothing.code == 2 and "nothing.jsonl: no such file" in nothing.err


def test_what_the_data_needs_is_declared_and_counted(model: Path, person: Person) -> None:
    rows: list[Any] = [talk(i, f"{i + 1}") for i in range(40)]
    rows[3]["messages"].insert(0, {"role": "user", "content": "Hello"})
    rows[4]["messages"].append({"role": "user", "content": "Thanks"})
    rows[5] = rows[6]
    text = "".join(json.dumps(row) + "\n" for row in rows) + "not json\n"
    (person.folder / "mine.jsonl").write_text(text, "utf-8")
    started = person.types("init", "mine.jsonl", "--model", str(model))
    written = (person.folder / "conf/experiment/mine.yaml").read_text("utf-8")
    for switch in ("on_invalid: skip", "on_consecutive: join", "on_last_user: drop", "on_duplicate: keep"):
        assert switch in written
    assert "mine.jsonl:41: not valid JSON" in started.out
    looked = person.types("traces", "+experiment=mine", "tracking=none")
    assert looked.code == 0, looked.err
    assert "messages in a row joined" in looked.out and "left out: invalid" in looked.out


def test_a_mixture_is_learned_and_every_score_has_its_slices(person: Person) -> None:
    write(person.folder)
    small = (
        "backend=torch",
        "hardware=cpu",
        "hardware.threads=1",
        "tracking=none",
        "training=smoke",
        "schedule=constant",
    )
    more = (
        "name=mixed",
        "generation.max_new_tokens=4",
        "training.max_steps=3",
        "schedule.warmup_steps=1",
        "dataset.max_length=null",
    )
    done = person.types(*words(Path()), *small, *more)
    assert done.code == 0, done.err
    assert set(person.reads("metrics.json", "mixed")["slices"]["dataset"]) == {"talk", "sums"}
    data = person.reads("data.json", "mixed")
    assert data["counts"]["dropped"]["weight"] > 10
    changed = json.loads((person.folder / "test.jsonl").read_text().splitlines()[0])
    (person.folder / "test.jsonl").write_text(json.dumps(changed | {"completion": "7"}) + "\n")
    again = person.types(*words(Path()), *small, *more)
    assert again.code == 2 and "test.jsonl: changed since version 1 of dataset mixed" in again.err
