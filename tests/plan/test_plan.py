"""What `plan` says: counts as the data and the config give them, advice that holds, a table, JSON, and no weights."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import TOY, config_of
from tunix_rt.__main__ import main
from tunix_rt.inputs import prepared_data
from tunix_rt.models.folder import read_architecture, read_config, read_weights
from tunix_rt.models.initialise import write_zero_weights
from tunix_rt.plan.measure import measuring
from tunix_rt.plan.outline import outline, prepared_shapes
from tunix_rt.tracking.registry import ModelStore

BACKENDS = ("jax", "torch")
HUGE = (
    "model.source.hidden_size=16384",
    "model.source.intermediate_size=57344",
    "model.source.num_hidden_layers=20",
    "model.source.num_attention_heads=128",
    "model.source.num_key_value_heads=16",
    "training.max_steps=1",
    "training.evaluate_every=null",
    "schedule.warmup_steps=0",
)
"""As many parameters as Llama 3 70B, in fewer layers."""
MIDDLE = (
    "model.source.hidden_size=512",
    "model.source.intermediate_size=2048",
    "model.source.num_hidden_layers=4",
    "model.source.num_attention_heads=8",
    "model.source.num_key_value_heads=8",
    "training.global_batch_size=8",
    "training.max_steps=2",
)
"""17 M parameters, and activations of the same order."""
DEEP = (
    "backend=torch",
    "model.source.hidden_size=256",
    "model.source.intermediate_size=1024",
    "model.source.num_hidden_layers=2",
    "training.global_batch_size=64",
    "training.max_steps=2",
    "training.row_length=128",
    "hardware.local_batch_size=64",
)
"""Activations are most of what it takes."""


@pytest.fixture
def plan(work: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """(words) → exit code, stdout, stderr, in an empty directory; data are small."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["plan", *TOY, *words])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


@pytest.fixture
def planned(plan: Any) -> Any:
    """The same → what the JSON holds."""

    def run(*words: str) -> Any:
        code, out, err = plan("--json", "--no-measure", *words)
        assert code in (0, 3), err
        made = json.loads(out)
        assert made["fits"] == (code == 0)
        return made

    return run


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.slow
def test_it_counts_what_the_data_and_the_model_hold(backend: str, planned: Any) -> None:
    made = planned(f"backend={backend}")
    config = config_of([f"backend={backend}", *TOY])
    prepared = prepared_data(config, ModelStore(config.tracking.uri))
    weights = read_weights(prepared.model_folder)
    count = sum(array.size for array in weights.values())
    assert made["parameters"] == {"total": count, "trained": count, "active": count}
    assert made["tokens_per_epoch"] == prepared.manifest["splits"]["train"]["tokens"]
    assert made["num_steps"] == config.training.max_steps
    assert made["num_epochs"] == pytest.approx(made["num_steps"] / made["steps_per_epoch"], abs=1e-4)
    assert set(made["phases"]) == {"load", "train", "save", "predict"}
    train = made["phases"]["train"]
    assert train["weights"] == train["gradients"] == count * 4
    assert train["optimizer"] == 2 * count * 4
    assert train["activations"] > 0
    assert made["peak"] == max(phase["total"] for phase in made["phases"].values())
    for phase in made["phases"].values():
        assert phase["total"] == sum(size for part, size in phase.items() if part != "total")
    assert made["measured"] is made["training_seconds"] is None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.slow
def test_an_adapter_is_counted_and_the_rest_is_frozen(backend: str, planned: Any) -> None:
    words = (f"backend={backend}", "model/adapter=lora", "model.adapter.rank=3", "model.adapter.dropout=0.1")
    whole, lora = planned(f"backend={backend}"), planned(*words)
    config = config_of(TOY)
    source, prepared = config.model.source, prepared_data(config, ModelStore(config.tracking.uri))
    width, inner = source.hidden_size, source.intermediate_size  # type: ignore[union-attr]
    a_layer = 4 * 3 * (width + width) + 3 * 3 * (width + inner)
    assert lora["parameters"]["trained"] == 2 * a_layer
    assert lora["parameters"]["total"] == whole["parameters"]["total"] + 2 * a_layer
    assert lora["phases"]["train"]["gradients"] == 4 * lora["parameters"]["trained"]
    assert lora["phases"]["save"]["total"] < whole["phases"]["save"]["total"]
    small = planned(*words, "model.adapter.quantize=nf4", "generation.batch_size=1")
    matrices = 2 * (4 * width * width + 3 * width * inner)
    saved = lora["phases"]["train"]["weights"] - small["phases"]["train"]["weights"]
    assert saved == 4 * matrices - (matrices // 2 + matrices // 64 * 4), "half a byte, and 4 bytes of 64 values"
    assert lora["phases"]["load"]["copies"] - small["phases"]["load"]["copies"] == saved - 4 * width * inner
    head = 4 * width * read_architecture(prepared.model_folder).vocab_size if backend == "torch" else 0
    assert small["phases"]["predict"]["copies"] == head


def test_of_experts_those_of_a_token_are_counted(plan: Any) -> None:
    """A token passes through 2 of 8, each of 3 matrices [16, 32]."""
    sizes = "hidden_size:32,intermediate_size:1,moe_intermediate_size:16,num_hidden_layers:2,num_attention_heads:2"
    counts = "num_key_value_heads:1,head_dim:16,max_position_embeddings:256,num_experts:8,num_experts_per_tok:2"
    words = ("model=distilgpt2_scratch", "~model.source.config.vocab_size", "backend=torch", "--no-measure")
    _, out, err = plan(*words, f"+model.source.config={{{sizes},{counts}}}", "model.source.config.model_type=qwen3_moe")
    found = re.search(r"([\d,]+), of which ([\d,]+) are trained and ([\d,]+) compute a token", out)
    assert found, err
    total, trained, active = (int(text.replace(",", "")) for text in found.groups())
    assert total == trained == active + 2 * 6 * 3 * 16 * 32


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.slow
def test_seventy_billion_parameters_are_planned_from_shapes_alone(backend: str, planned: Any, work: Path) -> None:
    """Their weights would fill no machine that runs this test."""
    made = planned(f"backend={backend}", "--memory", "64TiB", *HUGE)
    assert 6.8e10 < made["parameters"]["total"] < 7.1e10
    assert made["fits"]
    assert made["phases"]["train"]["total"] > 16 * made["parameters"]["total"]
    assert not [*work.rglob("*.safetensors")]


@pytest.mark.acceptance  # a dozen settings, 20 seconds
def test_what_does_not_fit_would_with_each_advice(planned: Any, plan: Any) -> None:
    """As `plan` itself says, with the same memory."""
    planned(*DEEP)  # what it imports counts as overhead afterwards
    whole = planned(*DEEP)
    limit = whole["overhead"] + whole["peak"] * 7 // 8
    memory = ("--memory", str(limit))
    refused = planned(*memory, *DEEP)
    assert not refused["fits"]
    told = [text for change in refused["advice"] for text in change]
    assert "backend.gradient_checkpointing=true" in told
    assert any(text.startswith("hardware.local_batch_size=") for text in told)
    for change in refused["advice"]:
        assert planned(*memory, *DEEP, *change)["fits"], change
    code, out, _ = plan("--no-measure", *memory, *DEEP)
    assert code == 3
    assert "does not fit" in out
    assert "would fit with backend.gradient_checkpointing=true" in out


@pytest.mark.acceptance
def test_a_quantised_base_is_advised_where_weights_are_most_of_it(planned: Any) -> None:
    words = ("backend=torch", *MIDDLE, "model/adapter=lora", "training.global_batch_size=1")
    words = (*words, "backend.gradient_checkpointing=true", "generation.batch_size=1")
    words = (*words, "model.source.hidden_size=1024", "model.source.intermediate_size=4096")
    planned(*words)  # what it imports counts as overhead afterwards
    full = planned(*words)
    refused = planned("--memory", str(full["overhead"] + full["peak"] // 2), *words)
    assert refused["advice"] == [["model.adapter.quantize=nf4"]]


@pytest.mark.slow
def test_what_no_setting_helps_is_said(plan: Any) -> None:
    code, out, _ = plan("--no-measure", "--memory", "1MiB", "backend=torch")
    assert code == 3
    assert "a smaller model would" in out


@pytest.mark.acceptance  # a model of 135 M parameters is compiled for a dozen settings
def test_several_changes_together_where_none_is_enough(planned: Any) -> None:
    """Moments alone are too much, and so are activations alone; answers have room as they are."""
    wide = (*DEEP, "model.source.hidden_size=1024", "model.source.intermediate_size=4096")
    memory = ("--memory", str(planned(*wide)["overhead"] + 600 * 2**20))
    refused = planned(*memory, *wide)
    assert not refused["fits"]
    (change,) = refused["advice"]
    assert "model/adapter=lora" in change
    assert len(change) > 1
    assert not any(text.startswith("generation") for text in change)
    assert planned(*memory, *wide, *change)["fits"]


@pytest.mark.slow
def test_a_measured_second_gives_the_time(plan: Any) -> None:
    code, out, err = plan("--json", "backend=torch")
    assert code == 0, err
    made = json.loads(out)
    measured = made["measured"]
    assert measured["seconds"] >= 1
    assert made["training_seconds"] == pytest.approx(measured["seconds"] / measured["num_steps"] * made["num_steps"])


@pytest.mark.slow
def test_the_table_is_plain_text_in_a_pipe(plan: Any) -> None:
    code, out, _ = plan("--no-measure", "backend=torch")
    assert code == 0
    assert "\x1b" not in out
    for words in ("parameters", "weights", "KV cache", "optimizer", "neither memory nor time", "fits:"):
        assert words in out
    _, out, _ = plan("--no-measure", "backend=torch", "hardware=cpu", "hardware.devices=4", "hardware.mesh.shard=4")
    assert "4 x cpu: data 1 x shard 4 x tensor 1" in out


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.slow
def test_what_is_derived_is_most_of_what_is_measured(backend: str, plan: Any) -> None:
    """Prevents: a derived number that is made up, and a measurement of something else than the declared step."""
    code, out, err = plan("--json", f"backend={backend}", *MIDDLE)
    assert code == 0, err
    made = json.loads(out)
    train, measured = made["phases"]["train"]["total"], made["measured"]
    assert measured["ended"] == "done"
    assert train > 300 * 2**20, "void: what any process takes would do"
    beyond = measured["peak"] - train
    print(f"{backend}: {train / 2**20:.0f} MiB derived, {beyond / 2**20:.0f} MiB beyond")
    assert 0 < beyond < 1.5 * 2**30
    assert made["overhead"] >= beyond


def test_steps_that_take_more_than_they_may_are_ended(work: Path) -> None:
    """Prevents: a plan that fills the memory of the machine to find out whether it would."""
    config = config_of([*TOY, "backend=torch", *MIDDLE])
    with measuring(config) as measure, prepared_shapes(config) as prepared:
        measured = measure(outline(config, prepared), 2**28)
    assert (measured.ended, measured.num_steps) == ("out of memory", 0)
    assert measured.peak > 2**28


def test_what_a_run_has_prepared_is_not_prepared_again(work: Path) -> None:
    """Prevents: seconds of a plan for data that are there. What is damaged is not taken."""
    config = config_of([*TOY, "backend=torch"])
    prepared = prepared_data(config, ModelStore(config.tracking.uri))
    with prepared_shapes(config) as shapes:
        assert shapes.folder == prepared.folder
    prepared.traces_file("train").write_text("")
    with prepared_shapes(config) as shapes:
        assert shapes.folder != prepared.folder


def test_the_limit_is_what_was_named(planned: Any) -> None:
    assert planned("--memory", "1.5 TiB", "backend=torch")["limit"] == 3 << 39


def test_a_size_that_is_none_is_an_error(plan: Any) -> None:
    code, _, err = plan("--memory", "much")
    assert code == 2
    assert "expected a size such as 8GiB" in err


def test_a_blank_model_is_one_of_zeros_that_takes_no_room(tmp_path: Path) -> None:
    config = config_of(TOY)
    prepared = prepared_data(config, ModelStore(config.tracking.uri))
    write_zero_weights(tmp_path, read_config(prepared.model_folder))
    weights = read_weights(tmp_path)
    assert sum(array.size for array in weights.values()) == read_architecture(tmp_path).num_parameters
    assert not any(np.any(array) for array in weights.values())
    file = (tmp_path / "model.safetensors").stat()
    assert file.st_blocks * 512 < 0.1 * file.st_size
    assert math.isclose(file.st_size, 4 * read_architecture(tmp_path).num_parameters, rel_tol=0.05)


@pytest.mark.slow
def test_rollouts_are_planned_at_their_longest(planned: Any) -> None:
    """Sampling is a phase of its own; with a reference, and every weight trained, a second model stays."""
    start = prepared_data(config_of(TOY), ModelStore("sqlite:///none.db")).model_folder
    words = ("model=from_path", f"model.source.path={start}", "tokenizer=pretrained", "objective=grpo")
    alone, beside = (planned("backend=torch", *words, f"objective.kl_coefficient={weight}") for weight in (0.0, 0.1))
    phases = alone["phases"]
    assert phases["sample"]["kv_cache"] > 0
    assert phases["sample"]["optimizer"] == phases["train"]["optimizer"] > 0
    assert beside["phases"]["train"]["weights"] == 2 * phases["train"]["weights"]
