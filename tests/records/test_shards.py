"""A model of more than one file is trained, resumed, checked, archived and loaded like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.pipeline.conftest import Person
from tests.records.conftest import WORDS, Types, traces
from tests.records.test_damage import unfinished
from tunix_rt.models.folder import read_weights
from tunix_rt.runs.folder import RunFolder


@pytest.mark.acceptance
def test_a_model_of_several_files(person: Person, types: Types, work: Path) -> None:
    (work / "mine.jsonl").write_text(traces(40))
    words = (*WORDS, "generation.baseline=false", "checkpoint.max_shard_size=50KB", "checkpoint.save_every=2")
    done = types(*words)
    assert done.code == 0, done.err
    run = RunFolder(person.run_folder("mine"))
    good = {file.name: file.read_bytes() for file in run.model.iterdir()}
    shards = sorted(name for name in good if name.endswith(".safetensors"))
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors" and "model.safetensors.index.json" in good
    transformers_loads(run.model)

    unfinished(run, "train", "predict", "evaluate", "report")
    last = sorted(run.checkpoints.iterdir())[-1]
    (last / "checkpoint.json").unlink()
    assert len(list(last.glob("optimizer-*.safetensors"))) > len(shards)
    done = types(*words)
    assert (done.code, "going on from step 4" in done.err + done.out) == (0, True), done.err
    assert {file.name: file.read_bytes() for file in run.model.iterdir()} == good

    assert types("verify", run.name).code == 0
    assert types("export", run.name, "all.zip").code == 0
    assert types("verify", "all.zip").code == 0
    for name in (shards[-1], "model.safetensors.index.json"):
        (run.model / name).write_bytes(good[name][:-1] + b" ")
        done = types("verify", run.name)
        assert (done.code, f"{name}: damaged" in done.out) == (5, True), done.out
        (run.model / name).write_bytes(good[name])


def transformers_loads(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    for name, tensor in read_weights(folder).items():
        np.testing.assert_array_equal(theirs[name].numpy(), tensor)
