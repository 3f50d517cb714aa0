"""What `plan` says of several devices: a part of what is held, what is sent, and the mesh that would make it fit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TOY, config_of
from tunix_rt.__main__ import main
from tunix_rt.backends import sizes
from tunix_rt.backends.memory import asked
from tunix_rt.models.families.registry import tensors_of
from tunix_rt.plan.outline import outline, prepared_shapes

WIDE = (
    "model.source.hidden_size=256",
    "model.source.intermediate_size=1024",
    "model.source.num_hidden_layers=3",
    "training.global_batch_size=16",
    "training.row_length=128",
    "training.max_steps=2",
)


@pytest.fixture
def planned(work: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """(words) → what the JSON holds, in an empty directory."""

    def run(*words: str) -> Any:
        code = main(["plan", "--json", *TOY, "backend=torch", *words])
        shown = capsys.readouterr()
        assert code in (0, 3), shown.err
        return json.loads(shown.out)

    return run


@pytest.mark.slow
def test_a_device_holds_its_part_and_sends_what_theory_says(planned: Any) -> None:
    """Against arithmetic of its own: 16 bytes per parameter over the shards, (n - 1) / n of what is moved."""
    one, four = planned("--no-measure", *WIDE), planned("--no-measure", *WIDE, *SHARDED)
    whole, part = one["phases"]["train"], four["phases"]["train"]
    for name in ("weights", "gradients", "optimizer"):
        assert part[name] == pytest.approx(whole[name] / 4, rel=1e-3)
    assert 0 < part["activations"] < whole["activations"] / 2
    assert "gathered" not in whole or whole["gathered"] == 0
    layer = 4 * (4 * 256 * 256 + 3 * 256 * 1024 + 2 * 256)
    count = one["parameters"]["total"]
    outside = 4 * count - 3 * layer
    assert part["gathered"] == 3 * layer + 2 * outside, "two layers and the gradients of one, and what is outside"
    sent = four["sent_per_step"]
    tied = outside - 4 * 256
    assert sent["all_gather"] == pytest.approx(2 * (2 * 3 * layer + outside + tied) * 3 / 4, abs=1), "two micro-batches"
    assert sent["reduce_scatter"] == pytest.approx(2 * (4 * count + tied) * 3 / 4, abs=1)
    assert sent["all_reduce"] == sent["tensor"] == 0
    assert not any(one["sent_per_step"].values())
    assert four["rows"] == {"num_rows": 16, "micro_batches": 2, "num_row_ranks": 4, "local_rows": 2, "empty_rows": 0}

    data = planned("--no-measure", *WIDE, "hardware.devices=3", "model/adapter=lora")
    adapter = 4 * data["parameters"]["trained"]
    assert data["sent_per_step"]["all_reduce"] == pytest.approx(2 * adapter * 2 / 3, abs=1)
    assert data["rows"]["empty_rows"] == 2


SHARDED = ("hardware.devices=4", "hardware.mesh.shard=4", "hardware.local_batch_size=2")


@pytest.mark.slow
def test_the_mesh_that_would_make_it_fit_is_named(planned: Any) -> None:
    """And with it, the same memory is enough; the one before was not."""
    wide = (*WIDE, "model.source.hidden_size=512", "training.global_batch_size=8", "generation.batch_size=1")
    wide = (*wide, "backend.gradient_checkpointing=true", "model.source.intermediate_size=2048")
    planned("--no-measure", *wide)  # what it imports counts as overhead afterwards
    one = planned("--no-measure", *wide)
    memory = ("--no-measure", "--memory", str(one["overhead"] + one["peak"] * 2 // 3))
    refused = planned(*memory, *wide)
    (mesh,) = (change for change in refused["advice"] if change[0].startswith("hardware.devices"))
    devices = int(mesh[0].partition("=")[2])
    assert mesh == [f"hardware.devices={devices}", f"hardware.mesh.shard={devices}"]
    assert planned(*memory, *wide, *mesh)["fits"]


@pytest.mark.slow
def test_automatic_rows_are_as_many_as_fit(planned: Any) -> None:
    planned("--no-measure", *WIDE)
    whole = planned("--no-measure", *WIDE)
    assert whole["rows"]["local_rows"] == 16
    less = planned("--no-measure", "--memory", str(whole["overhead"] + whole["peak"] // 2), *WIDE)
    assert less["fits"]
    assert less["rows"]["local_rows"] < 16
    assert less["rows"]["local_rows"] * less["rows"]["micro_batches"] >= 16


@pytest.mark.slow
def test_the_estimate_that_needs_no_compiler_is_near_what_the_code_takes(work: Path) -> None:
    """Prevents: a start that is far too small, or so large that it is halved again and again."""
    for more in (
        (),
        ("backend.precision=bfloat16",),
        ("backend.gradient_checkpointing=true",),
        ("model/adapter=lora",),
    ):
        config = config_of([*TOY, "backend=torch", *WIDE, *more])
        with prepared_shapes(config) as prepared:
            query = outline(config, prepared).query
        exact = asked("torch", "activations")
        assert exact is not None
        found = sizes.activations(query, 16, 128) / exact(query)
        assert 0.7 < found < 2.5, (more, found)
        assert sum(math.prod(tensor.shape) for tensor in tensors_of(query.architecture)) > 0


@pytest.mark.acceptance  # three processes of torch
def test_the_processes_of_a_plan_take_what_it_says(planned: Any) -> None:
    """Two processes that share the weights out, tried for a second: their part of the table, and what each takes."""
    words = (*WIDE, "model.source.hidden_size=768", "model.source.intermediate_size=3072", "generation.batch_size=1")
    one, two = planned(*words), planned(*words, "hardware.devices=2", "hardware.mesh.shard=2")
    for made in (one, two):
        measured, train = made["measured"], made["phases"]["train"]["total"]
        assert measured["ended"] == "done"
        print(f"{train / 2**20:.0f} MiB by the table, {measured['peak'] / 2**20:.0f} MiB measured")
        assert 0 < measured["peak"] - train < 1.5 * 2**30
    assert two["measured"]["peak"] < one["measured"]["peak"]
