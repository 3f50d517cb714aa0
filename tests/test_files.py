"""Durable files: whole or not at all, and a bad line is named by file and number."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunix_rt.errors import DataError
from tunix_rt.files import (
    append_line,
    atomic_writer,
    digest,
    read_json,
    read_jsonl,
    read_lines,
    write_json,
    write_jsonl,
)


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})
    with pytest.raises(RuntimeError), atomic_writer(file) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert read_json(file) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"[1]", ":2: a JSON list, expected an object"),
        (b"{", ":2: not valid JSON"),
        (b"\xff{}", ":2: not UTF-8 text"),
        (b'{"a": ' + b"9" * 5000 + b"}", ":2: not readable JSON"),
        (b"[" * 100_000, ":2: not readable JSON"),
    ],
)
def test_a_bad_line_is_named_and_the_others_are_read(tmp_path: Path, line: bytes, expected: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": 1}\n' + line + b'\n\n{"a": 2}\n')
    found = list(read_lines(file))
    assert [number for number, _ in found] == [1, 2, 4]
    assert expected in str(found[1][1])
    with pytest.raises(DataError, match=expected[:10]):
        list(read_jsonl(file))


def test_binary_missing_and_folder(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"\x00\x01")
    with pytest.raises(DataError, match="binary data"):
        list(read_lines(tmp_path / "b"))
    with pytest.raises(DataError, match="no such file"):
        list(read_lines(tmp_path / "c"))
    with pytest.raises(DataError, match="a folder"):
        list(read_lines(tmp_path))
    with pytest.raises(DataError, match="no such file"):
        read_json(tmp_path / "c")
    (tmp_path / "d").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        read_json(tmp_path / "d")


def test_lines_are_appended_after_a_torn_one(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    assert write_jsonl(file, [{"a": 1}]) == 1
    with file.open("ab") as stream:
        stream.write(b'{"a": ')
    append_line(file, {"a": "ä"})
    assert [value for _, value in read_lines(file) if isinstance(value, dict)] == [{"a": 1}, {"a": "ä"}]


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})
