"""Recorded hashes: every change is found, and the second look reads no bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunix_rt import checked
from tunix_rt.checked import LARGE, damage, replaced, seal, sha256_of
from tunix_rt.files import read_json, sha256_bytes, sha256_file


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of its own, and nothing remembered in this process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(checked, "_known", {})
    yield tmp_path / "cache" / "tunix_rt"


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read whole from now on."""
    read: list[Path] = []

    def reading(path: Path) -> str:
        read.append(path)
        return sha256_file(path)

    monkeypatch.setattr(checked, "sha256_file", reading)
    return read


def test_each_kind_of_damage_is_named_with_the_file(cache: Path, tmp_path: Path) -> None:
    """Prevents: prepared data and models that are trusted by their names."""
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    for name in ("same", "flipped", "cut", "gone", "sub/deep"):
        (folder / name).write_bytes(name.encode() * 10)
    sealed = seal(folder)
    assert sealed["sub/deep"] == {"sha256": sha256_bytes(b"sub/deep" * 10), "bytes": 80}
    assert damage(folder, sealed) == []
    (folder / "flipped").write_bytes(b"flipped" * 9 + b"flippee")
    (folder / "cut").write_bytes(b"cut")
    (folder / "gone").unlink()
    (folder / "sub/deep").unlink()
    (folder / "sub/deep").mkdir()
    assert damage(folder, sealed) == [
        f"{folder}/cut: damaged (3 bytes, 30 were written)",
        f"{folder}/flipped: damaged (its sha256 is not that of the bytes that were written)",
        f"{folder}/gone: missing",
        f"{folder}/sub/deep: missing",
    ]


def test_a_second_look_reads_nothing_and_a_full_one_does(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents: minutes of hashing at each start, and a `verify` that believes the file system."""
    monkeypatch.setattr(checked, "SETTLED_NS", 0)
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(b"a" * LARGE)
    small.write_bytes(b"a")
    expected = sha256_bytes(b"a" * LARGE)
    assert sha256_of(large) == expected
    sha256_of(small)
    assert list(read_json(cache / "verified.json")) == [str(large)]
    monkeypatch.setattr(checked, "_known", {})  # as another process would begin
    read = counted(monkeypatch)
    assert [sha256_of(large), sha256_of(large), sha256_of(large, full=True)] == [expected] * 3
    assert read == [large]


def test_the_same_size_and_time_do_not_hide_a_change(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents: a file put back by a tool that restores times (rsync, cp -p, tar) being taken for the old one."""
    monkeypatch.setattr(checked, "SETTLED_NS", 0)
    file = tmp_path / "weights"
    file.write_bytes(b"a" * LARGE)
    sha256_of(file)
    before = file.stat()
    file.write_bytes(b"b" * LARGE)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sha256_of(file) == sha256_bytes(b"b" * LARGE)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[1]", '{"a": 3}', ""])
def test_a_damaged_memory_only_costs_time(cache: Path, tmp_path: Path, text: str) -> None:
    """Prevents: a cut cache file that ends every command."""
    cache.mkdir(parents=True)
    (cache / "verified.json").write_text(text)
    file = tmp_path / "a"
    file.write_bytes(b"a" * LARGE)
    os.utime(file, ns=(0, 0))
    assert sha256_of(file) == sha256_bytes(b"a" * LARGE)


def test_where_nothing_can_be_remembered_it_is_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents: a read-only or missing home directory that ends a run."""
    monkeypatch.setattr(checked, "_known", {})
    monkeypatch.setattr(checked, "SETTLED_NS", 0)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # below a file nothing can be made
    large = tmp_path / "large"
    large.write_bytes(b"a" * LARGE)
    assert sha256_of(large) == sha256_bytes(b"a" * LARGE)


def test_a_file_hashed_just_after_it_was_written_is_not_remembered_for_good(cache: Path, tmp_path: Path) -> None:
    """Prevents: a change within the same tick of the file system's clock staying unseen in all later processes."""
    file = tmp_path / "weights"
    file.write_bytes(b"a" * LARGE)
    sha256_of(file)
    assert not (cache / "verified.json").exists()


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for content in ("old", "new"):
        with replaced(folder) as part:
            part.mkdir()
            (part / "file").write_text(content)
        assert (folder / "file").read_text() == content and not part.exists()
    with pytest.raises(ValueError, match="half-way"), replaced(folder) as part:
        part.mkdir()
        raise ValueError("half-way")
    assert (folder / "file").read_text() == "new" and list(tmp_path.iterdir()) == [folder]
