"""Tables and JSON as people have them: an odd row costs that row, an odd file is one message."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from tunix_rt.config.dataset import DataFile, FilesSource
from tunix_rt.errors import DataError
from tunix_rt.traces.data_files import read_records
from tunix_rt.traces.messages import Rules
from tunix_rt.traces.sources import Record, Rejected, parts_of, read_source
from tunix_rt.traces.trace import Trace


@pytest.fixture
def lines(tmp_path: Path) -> Callable[[str, str], list[object]]:
    """The records of a file with this name and text, or the message of each that is none."""

    def read(name: str, text: str) -> list[object]:
        (tmp_path / name).write_text(text, "utf-8", newline="")
        return [str(v) if isinstance(v, DataError) else v for _, v in read_records(tmp_path / name)]

    return read


def traces(folder: Path, text: str, **columns: str) -> list[Trace | str]:
    (folder / "t.csv").write_text(text, "utf-8")
    file = DataFile(path=str(folder / "t.csv"), columns=columns)
    items = list(read_source(*parts_of(FilesSource(kind="files", train=file)), "train", 0, Rules()))
    return [
        item.reason if isinstance(item, Rejected) else item.trace
        for item in items
        if isinstance(item, Record | Rejected)
    ]


def test_an_empty_cell_of_a_named_column_is_a_missing_field(tmp_path: Path) -> None:
    columns = {"prompt": "q", "completion": "a", "system": "s"}
    one, two, three = traces(tmp_path, "q,a,s\n1?,1,\n2?,2,Hush.\n3?,,Hush.\n", **columns)
    assert isinstance(one, Trace) and [m.role for m in one.conversation] == ["user"]
    assert isinstance(two, Trace) and [m.role for m in two.conversation] == ["system", "user"]
    assert isinstance(three, str) and "t.csv:4: no known shape has the fields prompt, system" in three
    with pytest.raises(DataError, match=r"train: columns: no record has the field 'sytem' \(the first has q, a\)"):
        traces(tmp_path, "q,a,s\n1?,1,\n2?,2,\n", prompt="q", completion="a", system="sytem")


def test_a_stray_quote_costs_its_row_and_one_that_is_never_closed_is_named(
    lines: Callable[[str, str], list[object]],
) -> None:
    text = 'q,a\n1?,say "hi"\n"2"x?,2\n"a\nb",3\n'
    found = lines("t.csv", text)
    assert found[0] == {"q": "1?", "a": 'say "hi"'} and found[2] == {"q": "a\nb", "a": "3"}
    assert isinstance(found[1], str) and "t.csv:3: not a row of comma-separated values" in found[1]
    with pytest.raises(DataError, match=r"t\.csv:3: a quote is opened in this row and never closed"):
        lines("t.csv", 'q,a\n1?,1\n"2?,2\n3?,3\n')


def test_a_column_that_is_there_twice_is_refused(lines: Callable[[str, str], list[object]], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two columns are called 'a'"):
        lines("t.csv", "a,b,a\n1,2,3\n")
    assert lines("t.csv", ",a\n0,1\n") == [{"column 1": "0", "a": "1"}]
    table = pyarrow.Table.from_arrays([pyarrow.array([1]), pyarrow.array([2])], names=["a", "a"])
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DataError, match="two columns are called 'a'"):
        list(read_records(tmp_path / "t.parquet"))


def test_text_that_is_not_utf8_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,b\n1,2\n3,\xff\n")
    with pytest.raises(DataError, match=r"t\.csv: not UTF-8 text at or behind line .*CSV UTF-8"):
        list(read_records(tmp_path / "t.csv"))
    (tmp_path / "t.json").write_bytes(b'[\n {"a": 1},\n {"a": "\xe9"}\n]')
    with pytest.raises(DataError, match=r"t\.json:3: not UTF-8 text .* at byte 8 of the line\); save it as UTF-8"):
        list(read_records(tmp_path / "t.json"))


def test_a_spreadsheet_is_told_from_a_zip_archive_to_unpack(tmp_path: Path) -> None:
    (tmp_path / "book.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="or a spreadsheet; unpack it, or save its table as CSV UTF-8"):
        list(read_records(tmp_path / "book.xlsx"))


def test_a_line_for_spreadsheets_names_the_separator(lines: Callable[[str, str], list[object]]) -> None:
    assert lines("t.csv", "sep=;\na;b\n1,5;2\n") == [{"a": "1,5", "b": "2"}]
    (found,) = lines("t.csv", '\n"sep=|"\r\na|b\r\n1|2|3\r\n')
    assert str(found).endswith("t.csv:4: 3 cells, the header has 2")


def test_json_lines_that_are_called_a_table_are_json(lines: Callable[[str, str], list[object]]) -> None:
    rows = [{"prompt": "a, b", "completion": "1"}, {"prompt": "c", "completion": "2"}]
    assert lines("t.csv", "".join(json.dumps(row) + "\n" for row in rows)) == rows
    assert lines("u.csv", json.dumps(rows[0])) == rows[:1]


def test_json_values_one_after_the_other_are_read(lines: Callable[[str, str], list[object]]) -> None:
    rows = [{"prompt": f"{i}?", "completion": "1"} for i in range(3)]
    text = "\n".join(json.dumps(row, indent=2) for row in rows)
    assert lines("t.json", text) == rows
    assert lines("t.json", json.dumps(rows[:2], indent=1) + "\n" + json.dumps(rows[2:], indent=1)) == rows


@pytest.mark.parametrize("wrapped", [False, True])
def test_json_that_is_cut_off_is_one_message(lines: Callable[[str, str], list[object]], wrapped: bool) -> None:
    rows = [{"prompt": f"{i}?", "completion": "1"} for i in range(3)]
    text = json.dumps(rows, indent=1) if wrapped else "\n".join(json.dumps(row, indent=1) for row in rows)
    begins = 1 if wrapped else 9
    with pytest.raises(
        DataError, match=rf"t\.json: the JSON value that begins in line {begins} is cut off .* in line \d+"
    ):
        lines("t.json", text[:-10])


def test_a_damaged_first_line_is_one_of_many(lines: Callable[[str, str], list[object]]) -> None:
    for first in ('{"prompt": ', "nonsense", "[1]", "[1, 2"):
        found = lines("t.jsonl", f'{first}\n{{"prompt": "a"}}\n{{"prompt": "b"}}\n')
        assert [isinstance(item, str) for item in found] == [True, False, False]
