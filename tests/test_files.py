"""Durable files: whole or not at all, and a bad line is named by file and number."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunix_rt.errors import DataError
from tunix_rt.files import (
    append_line,
    apply_umask,
    atomic_writer,
    digest,
    read_appended,
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
    write_jsonl(file, [{"a": 1}])
    with file.open("ab") as stream:
        stream.write(b'{"a": ')
    append_line(file, {"a": "ä"})
    assert [value for _, value in read_lines(file) if isinstance(value, dict)] == [{"a": 1}, {"a": "ä"}]


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})


@pytest.mark.parametrize("rest", [b'{"a": 2', b'{"a": 2}', b"\x00\x00", b"\xff"])
def test_what_was_torn_off_is_left_out_once_named_and_cut_before_the_next_line(
    tmp_path: Path, rest: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents: a run that a full disk or a power cut ended for good, and a file that is no longer JSON lines."""
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": 1}\n' + rest)
    assert list(read_appended(file)) == list(read_appended(file)) == [(1, {"a": 1})]
    assert capsys.readouterr().err.count(f"{file}:2: a torn line") == 1
    append_line(file, {"a": 3})
    assert file.read_bytes() == b'{"a": 1}\n{"a": 3}\n'
    assert [record for _, record in read_jsonl(file)] == [{"a": 1}, {"a": 3}]


def test_a_torn_line_in_the_middle_is_left_out(tmp_path: Path) -> None:
    """Prevents: a log that an earlier version continued behind a torn line condemning its run for ever."""
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": 1}\n{"a": \n\n{"a": 3}\n')
    assert list(read_appended(file)) == [(1, {"a": 1}), (4, {"a": 3})]
    assert list(read_appended(tmp_path / "none")) == []


def test_a_torn_line_longer_than_a_block_is_cut_whole(tmp_path: Path) -> None:
    """Prevents: a search for the last end that stops after one block."""
    file = tmp_path / "a.jsonl"
    for first in (b"", b'{"a": 1}\n'):
        file.write_bytes(first + b"x" * 200_000)
        append_line(file, {"a": 2})
        assert file.read_bytes() == first + b'{"a": 2}\n'


def test_a_line_that_does_not_fit_leaves_nothing_of_itself(tmp_path: Path) -> None:
    """Prevents: a disk that fills while predicting leaving half a line. (A limit of file size stands for the disk.)"""
    program = (
        "import resource, sys; from pathlib import Path; from tunix_rt.files import append_line\n"
        "file = Path(sys.argv[1]); append_line(file, {'a': 1})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "append_line(file, {'a': 'x' * 500})\n"
    )
    file = tmp_path / "a.jsonl"
    done = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=False)
    assert f"File too large: '{file}'" in done.stderr.splitlines()[-1]
    assert file.read_bytes() == b'{"a": 1}\n'


def test_the_last_words_are_written_over_the_first_where_there_is_no_room_for_both(tmp_path: Path) -> None:
    """Prevents: a run that a full disk ended and that still says 'running'. (No new byte may be written here.)"""
    program = (
        "import os, resource, sys; from pathlib import Path; from tunix_rt import files\n"
        "file = Path(sys.argv[1]); files.write_json(file, {'state': 'running', 'reason': 'x' * 99})\n"
        "def full(path, text): raise OSError(28, os.strerror(28), str(path))\n"
        "files.write_text = full\n"
        "files.overwrite_json(file, {'state': 'failed'})\n"
    )
    file = tmp_path / "status.json"
    subprocess.run([sys.executable, "-c", program, str(file)], check=True)
    assert read_json(file) == {"state": "failed"}


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_of_others_get_the_mode_of_our_own(tmp_path: Path, mask: int) -> None:
    """Prevents: weights that colleagues on a shared machine cannot read, while all other files can be."""
    before = os.umask(mask)
    try:
        (tmp_path / "folder").mkdir()
        (tmp_path / "plain").touch()
        for name in ("one", "folder/two"):
            (tmp_path / name).touch(mode=0o600)
        apply_umask(tmp_path / "one")
        apply_umask(tmp_path / "folder")
    finally:
        os.umask(before)
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("plain", "one", "folder/two", "folder")}
    assert modes == {"plain": 0o666 & ~mask, "one": 0o666 & ~mask, "folder/two": 0o666 & ~mask, "folder": 0o777 & ~mask}


@pytest.mark.parametrize("raw", [b"[" * 100_000, b"9" * 5000, b"\xff", b"", b'{"a": '])
def test_whatever_a_json_file_holds_is_one_message_with_the_way_on(tmp_path: Path, raw: bytes) -> None:
    """Prevents: 'a bug, please report' for a depth bomb, and a cut record that does not say what to do."""
    file = tmp_path / "stages.json"
    file.write_bytes(raw)
    with pytest.raises(DataError, match=rf"{file}: not .*; remove it, and the command that wrote it writes it again"):
        read_json(file)


def test_what_a_killed_process_had_begun_to_write_goes_with_the_next_write(tmp_path: Path) -> None:
    """Prevents: part files that nobody ever removes, in a folder that DVC or a person takes as it is."""
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead, alive = tmp_path / f"a[1].{int(gone.stdout)}.part", tmp_path / f"a[1].{os.getppid()}.part"
    for part in (dead, alive):
        part.write_text("half")
    write_json(tmp_path / "a[1]", 1)
    assert not dead.exists() and alive.exists()
