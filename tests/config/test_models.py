"""Every file of `conf/model/`: typed, and where it names a model of the hub, pinned to a commit under a licence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, config_of
from tunix_rt.config.model import HubModel

MODELS = sorted(file.stem for file in (ROOT / "conf" / "model").glob("*.yaml"))
GIVEN = {"path": "somewhere", "uri": "models:/name/1", "experiment": "quickstart"}
"""What a person must say, where a file leaves it open."""


def declared(name: str) -> dict[str, object]:
    return dict(yaml.safe_load(path_of(name).read_text("utf-8"))["source"])


def path_of(name: str) -> Path:
    return ROOT / "conf" / "model" / f"{name}.yaml"


def test_the_common_families_are_there() -> None:
    expected = "distilgpt2 gpt2 smollm2_135m smollm2_360m smollm2_1_7b smollm3_3b qwen2_5_0_5b qwen3_0_6b qwen3_1_7b"
    assert {*expected.split(), "llama3_2_1b", "gemma3_270m", "gemma3_1b", "olmo2_1b", "from_path"} <= {*MODELS}


@pytest.mark.parametrize("name", MODELS)
def test_it_composes_and_is_typed(name: str) -> None:
    source = declared(name)
    words = [f"model.source.{key}={GIVEN[key]}" for key, value in source.items() if value == "???"]
    if source["kind"] not in ("fresh", "scratch"):
        words.append("tokenizer=pretrained")
    found = config_of([f"model={name}", *words]).model.source
    assert found.kind == source["kind"]
    if isinstance(found, HubModel):
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", found.name)
        assert re.fullmatch(r"[0-9a-f]{40}", found.revision), "a branch may move"
        opening = path_of(name).read_text("utf-8").partition("source:")[0]
        assert re.search(r"Apache-2\.0|MIT|License|Terms of Use", opening)
        gated = found.name.startswith(("meta-llama/", "google/"))
        assert ("Gated: " in opening and "HF_TOKEN" in opening and found.name in opening) == gated
