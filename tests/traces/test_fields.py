"""Fields around the text of a record: none vanishes, none decides anything unasked, none refuses a row for nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tunix_rt.config.dataset import DataFile, FilesSource
from tunix_rt.errors import DataError
from tunix_rt.traces.adapters import adapt
from tunix_rt.traces.data_files import Columns, read_records
from tunix_rt.traces.keys import group_hash
from tunix_rt.traces.messages import Rules
from tunix_rt.traces.sources import Record, Rejected, parts_of, read_source
from tunix_rt.traces.trace import Message, Trace, prompt_id

PAIR = {"prompt": "Q", "completion": "7"}
PARTS = {"prompt": "Q", "steps": [], "final_answer": "7"}


def read(record: dict[str, Any], rules: Rules | None = None) -> Trace:
    return adapt(record, "auto", "f:1", rules or Rules())


def said(trace: Trace) -> str:
    assert trace.completion is not None
    return trace.completion.content


def test_fields_that_other_rows_of_a_parquet_file_have_are_not_in_a_row(tmp_path: Path) -> None:
    """Arrow gives all objects of a column the same fields: `weather` would be called with `a: null`."""

    def row(name: str, field: str) -> dict[str, Any]:
        call = {"type": "function", "function": {"name": name, "arguments": {field: 1}}}
        said = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
        schema = {"type": "object", "properties": {field: {"type": "integer"}}}
        return {"messages": said, "tools": [{"type": "function", "function": {"name": name, "parameters": schema}}]}

    rows = [row("weather", "city"), row("add", "a")]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    rules = Rules()
    found = [value for _, value in read_records(tmp_path / "t.parquet", rules.noted)]
    assert found[0]["messages"][1] == rows[0]["messages"][1]  # type: ignore[index]
    assert [value["tools"] for value in found] == [one["tools"] for one in rows]  # type: ignore[index]
    assert rules.noted == {"rows without the null fields of their nested columns": 2}


def test_only_a_declared_group_decides_the_split() -> None:
    rules = Rules()
    trace = read(PAIR | {"group": "A"}, rules)
    assert trace.meta == {"own_group": "A"} and group_hash(trace, 0) == group_hash(read(PAIR), 0)
    assert rules.noted == {"field group called meta.own_group": 1}
    assert read(PARTS | {"group": "A"}).meta == {"own_group": "A"}
    for record in (PAIR | {"meta": {"group": "A"}}, Columns({"group": "part"}, "c").rename(PAIR | {"part": "A"})):
        assert read(record).meta == {"group": "A"}
        assert group_hash(read(record), 0) == group_hash(read(PAIR | {"prompt": "R", "meta": {"group": "A"}}), 0)


def test_a_trace_keeps_its_other_fields_and_its_system_message() -> None:
    rules = Rules()
    trace = read(PARTS | {"system": "Hush.", "tools": [], "source": "x", "image": "y", "meta": {"level": 1}}, rules)
    assert trace.meta == {"source": "x", "image": "y", "level": 1} and rules.noted == {"field image not used": 1}
    assert trace.conversation == (Message("system", "Hush."), Message("user", "Q")) and trace.prompt == "Q"
    with pytest.raises(DataError, match="f:1: system: messages have a system message already"):
        read(PARTS | {"system": "Hush.", "messages": [{"role": "system", "content": "S"}]})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": [{"i": 0, "content": "so", "span": [0, 1]}]}, r"steps, i=0: \[0, 1\) of the completion is 's'"),
        ({"answer_span": [0, 2]}, r"final_answer: \[0, 2\) of the completion is 'so', expected '7'"),
    ],
)
def test_a_span_is_what_it_says(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"f:1: {message}"):
        read(PARTS | {"completion": "so 7"} | changed)
    assert read(PARTS | {"completion": "so 7", "answer_span": [3, 4]}).answer_span == (3, 4)


def test_a_column_for_a_field_that_no_shape_has_is_refused_and_one_in_its_place_is_kept() -> None:
    with pytest.raises(DataError, match=r"c: 'inpt' is no field of any shape; did you mean 'input'\? \(there"):
        Columns({"inpt": "input"}, "c")
    renamed = Columns({"prompt": "question", "completion": "answer"}, "c").rename(
        {"prompt": "the record's", "question": "Q", "answer": "7"}
    )
    assert read(renamed).meta == {"own_prompt": "the record's"} and read(renamed).prompt == "Q"
    swapped = Columns({"prompt": "completion", "completion": "prompt"}, "c").rename({"prompt": "7", "completion": "Q"})
    assert swapped == PAIR


def test_a_question_with_an_answer_is_gsm8k_only_with_its_mark() -> None:
    rules = Rules()
    assert said(read({"question": "Q", "answer": "It is 7."}, rules)) == "It is 7."
    assert said(read({"question": "Q", "answer": 7}, rules)) == "7"
    assert said(read({"prompt": 3, "completion": 7}, rules)) == "7"
    asked = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": 7}]
    assert said(read({"messages": asked}, rules)) == "7"
    assert rules.noted == {"numbers written as text": 4}
    assert read({"problem": "Q", "solution": "so 7", "answer": 0.5}).final_answer == "0.5"
    with pytest.raises(DataError, match=r"completion: expected text, got a number \(7.5\), which can be written"):
        read({"prompt": "Q", "completion": 7.5})


def test_only_calculations_are_left_out_of_gsm8k() -> None:
    text = "a << 1 or x >> 2, <<name>> is 1+6=<<1+6=7>>7\n#### 7"
    assert said(read({"question": "Q", "answer": text})) == "a << 1 or x >> 2, <<name>> is 1+6=7\n#### 7"


@pytest.mark.parametrize("record", [PAIR, PARTS])
def test_no_row_is_refused_for_a_field_that_nobody_learns(record: dict[str, Any]) -> None:
    for meta, kept in ((None, {}), ("x", {"meta": "x"}), ([1], {"meta": [1]}), ({"x": float("nan")}, {"x": None})):
        assert read(record | {"meta": meta}).meta == kept
    names = {1.0: "1", "": prompt_id("Q"), False: "false", 2.5: "2.5"}
    assert {given: read(record | {"id": given}).id for given in names} == names
    assert read(record | {"id": {"$oid": "5f"}}).id == "5f"
    assert read(record | {"picture": b"\xff\xd8", "more": {"x": b"\xff"}}).meta == {
        "picture": "2 bytes",
        "more": {"x": "1 bytes"},
    }


def test_messages_of_the_system_and_of_tools_may_be_empty(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {}}}
    turns = [
        {"role": "system", "content": ""},
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": ""},
        {"role": "assistant", "content": "7"},
    ]
    for rules in (Rules(), Rules(strip=True)):
        assert [message.content for message in read({"messages": turns}, rules).messages] == ["", "Q", "", ""]
    assert read({"instruction": "", "input": "Q", "output": "7"}).prompt == "Q"
    with pytest.raises(DataError, match="instruction: 0 characters"):
        read({"instruction": "", "input": "", "output": "7"})


def test_a_picture_beside_the_text_costs_no_row_and_bytes_as_text_do(tmp_path: Path) -> None:
    rows = [PAIR | {"picture": {"bytes": b"\xff\xd8", "path": None}}, PAIR | {"completion": "8", "picture": None}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    (part,) = parts_of(FilesSource(kind="files", train=DataFile(path=str(tmp_path))))
    items = list(read_source(part, "train", 0, Rules()))
    assert [item.trace.meta for item in items if isinstance(item, Record)] == [{"picture": {"bytes": "2 bytes"}}, {}]
    pyarrow.parquet.write_table(pyarrow.table({"prompt": [b"\xff"], "completion": ["7"]}), tmp_path / "t.parquet")
    (bad,) = read_source(part, "train", 0, Rules())
    assert isinstance(bad, Rejected) and "prompt: expected text, got bytes that are not UTF-8 text" in bad.reason
