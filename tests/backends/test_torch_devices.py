"""torch on 1, 2 and 4 processes: one experiment, the same numbers, text and model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backends.team import Job, Result, Team, run, weights_in
from tunix_rt.backends.interface import AdapterSetup, TrainingSetup
from tunix_rt.backends.processes.world import ALONE
from tunix_rt.batches.batch import Batch
from tunix_rt.config.model import LoraAdapter, ScratchModel
from tunix_rt.models.adapter_folder import Base
from tunix_rt.models.initialise import write_fresh
from tunix_rt.models.shards import finish

VOCABULARY = 13
"""Rows of the embeddings: 4 processes hold 4, 4, 4 and 1 of them."""
LLAMA = {
    "model_type": "llama",
    "hidden_size": 22,
    "intermediate_size": 35,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "head_dim": 10,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
MIXTRAL = LLAMA | {
    "model_type": "mixtral",
    "intermediate_size": 15,
    "num_hidden_layers": 1,
    "tie_word_embeddings": False,
    "num_local_experts": 3,
    "num_experts_per_tok": 2,
}
GPT2 = {"model_type": "gpt2", "n_embd": 18, "n_layer": 2, "n_head": 3, "n_positions": 64, "n_inner": 27}
DIVISIBLE = {"vocab_size": 14, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 24, "head_dim": 6}
QWEN_MOE = LLAMA | DIVISIBLE | {"model_type": "qwen2_moe", "intermediate_size": 36, "num_experts": 3}
QWEN_MOE |= {"num_experts_per_tok": 2, "moe_intermediate_size": 14, "shared_expert_intermediate_size": 18}
"""Biases, experts, and one for all tokens; its embeddings are tied."""
WIDE_GPT2 = GPT2 | {"vocab_size": 14, "n_embd": 16, "n_head": 4, "n_inner": 28}
"""Its matrices lie transposed, and queries, keys and values in one."""
QWEN3 = LLAMA | DIVISIBLE | {"model_type": "qwen3", "intermediate_size": 36, "tie_word_embeddings": False}
"""A norm of each head's queries and keys."""
MODELS = {"llama": LLAMA, "mixtral": MIXTRAL, "gpt2": GPT2}
MODELS |= {"qwen2_moe": QWEN_MOE, "wide gpt2": WIDE_GPT2, "qwen3": QWEN3}
LENGTH = 12
LORA = LoraAdapter(kind="lora", rank=4, alpha=8.0, dropout=0.3, target="all-linear", rslora=False, path=None)
Mesh = tuple[int, int, int]


def batch(seed: int, without_targets: Sequence[int] = ()) -> Batch:
    """Five rows, which no number of processes divides, each of two traces."""
    random = np.random.default_rng(seed)
    ids = random.integers(1, VOCABULARY, (5, LENGTH + 1)).astype(np.int32)
    weights = random.choice([0, 0.5, 1, 2], (5, LENGTH)).astype(np.float32)
    weights[list(without_targets)] = 0
    half = np.arange(LENGTH, dtype=np.int32) // (LENGTH // 2)
    positions = np.arange(LENGTH, dtype=np.int32) - half * (LENGTH // 2)
    tokens, targets = (np.ascontiguousarray(part) for part in (ids[:, :-1], ids[:, 1:]))
    rows = (5, 1)
    return Batch.supervised(tokens, targets, np.tile(positions, rows), np.tile(half + 1, rows), weights)


@pytest.fixture(scope="module")
def teams() -> Iterator[dict[int, Team]]:
    found = {size: Team(size) for size in (2, 4)}
    yield found
    for team in found.values():
        team.close()


@pytest.fixture(scope="module")
def job_of(tmp_path_factory: pytest.TempPathFactory, adamw: Any, decoding: Any) -> Any:
    """(model, changes) → a job: three updates, of which one leaves processes without a target, and seven prompts."""
    folders = {name: tmp_path_factory.mktemp(name) for name in MODELS}
    for name, config in MODELS.items():
        source = ScratchModel(kind="scratch", config=config, initializer_range=0.3, scale_residual_init=False)
        write_fresh(folders[name], source, VOCABULARY, seed=0, pad_id=0, end_id=1)
    batches = (batch(0, without_targets=(0, 1, 2)), batch(1), batch(2))
    random = np.random.default_rng(3)
    prompts = [random.integers(2, VOCABULARY, length).astype(np.int32) for length in (3, 5, 5, 7, 2, 4, 70)]
    # Where a gradient is zero but for rounding, Adam would make a whole step of it.
    setup = TrainingSetup(adamw(eps=1e-3), 0.5, 7)
    generation = decoding(batch_size=2, max_new_tokens=10)

    def build(model: str, adapter: LoraAdapter | None = None, **changes: Any) -> Job:
        base = folders[model]
        training = setup if adapter is None else replace(setup, adapter=AdapterSetup(adapter, Base.of(base, "0" * 64)))
        return replace(Job(base, training, batches, prompts, generation), **changes)

    return build


def on(teams: dict[int, Team], job: Job, mesh: Mesh, out: Path, *restored: Path) -> list[Result]:
    """The job on the processes of a mesh, with its model completed in `out`."""
    results: list[Result] = teams[int(np.prod(mesh))](run, job, mesh, out, *restored)
    finish(out, [result.saved for result in results])
    return results


def check(teams: dict[int, Team], job: Job, alone: tuple[Result, Path], mesh: Mesh, out: Path, **changes: Any) -> None:
    """Every process sees what one alone does, answers are complete, and the model that is saved is the same."""
    results = on(teams, replace(job, **changes), mesh, out)
    expected, folder = alone
    for result in results:
        np.testing.assert_allclose(result.losses, expected.losses, rtol=1e-6)
        np.testing.assert_allclose(result.norms, expected.norms, rtol=1e-5)
        np.testing.assert_allclose(result.logprobs, expected.logprobs, atol=2e-5)
    answers = [answer for result in results for answer in result.answers.items()]
    assert len(answers) == len(expected.answers)
    assert dict(answers) == expected.answers
    check_model(out, folder)


def check_model(folder: Path, expected: Path) -> None:
    found, wanted = weights_in(folder), weights_in(expected)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        # Moments are of gradients, in which larger numbers cancel.
        tolerance = 1e-4 if name.startswith(("m.", "v.")) else 1e-5
        assert np.linalg.norm(found[name] - value) <= tolerance * np.linalg.norm(value), name


def test_every_mesh_gives_the_numbers_the_text_and_the_model_of_one_process(
    teams: dict[int, Team], job_of: Any, tmp_path: Path
) -> None:
    """Tied embeddings; rows, vocabulary and widths that do not divide; processes without a row, or without a target."""
    job = job_of("llama")
    alone = run(ALONE, job, (1, 1, 1), tmp_path / "one"), tmp_path / "one"
    assert sum(map(len, alone[0].answers.values())) > 20, f"little text would prove nothing: {alone[0].answers}"
    for mesh in ((2, 1, 1), (1, 2, 1), (4, 1, 1)):
        check(teams, job, alone, mesh, tmp_path / f"{mesh}")
    check(teams, job, alone, (1, 4, 1), tmp_path / "accumulated", rows_at_once=1)
    check(teams, job, alone, (2, 2, 1), tmp_path / "recomputed", gradient_checkpointing=True)


def test_experts_and_adapters_on_frozen_quantised_parts(teams: dict[int, Team], job_of: Any, tmp_path: Path) -> None:
    """Dropout is drawn by the number of a row, wherever it is computed."""
    jobs = {
        "experts": job_of("mixtral"),
        "adapter": job_of("llama", LORA),
        "nf4": job_of("gpt2", replace(LORA, quantize="nf4")),
    }
    for name, job in jobs.items():
        alone = run(ALONE, job, (1, 1, 1), tmp_path / name), tmp_path / name
        check(teams, job, alone, (1, 4, 1), tmp_path / f"{name} on 4", rows_at_once=1)


def test_heads_inner_widths_and_vocabulary_are_shared_out(teams: dict[int, Team], job_of: Any, tmp_path: Path) -> None:
    for name, mesh in {"qwen2_moe": (1, 2, 2), "wide gpt2": (1, 1, 2), "qwen3": (2, 1, 2)}.items():
        job = job_of(name)
        alone = run(ALONE, job, (1, 1, 1), tmp_path / name), tmp_path / name
        check(teams, job, alone, mesh, tmp_path / f"{name} shared out", gradient_checkpointing=name == "qwen2_moe")


def test_what_cannot_be_shared_out_is_refused_with_the_numbers(
    teams: dict[int, Team], job_of: Any, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=r"tensor=2 does not divide num_key_value_heads 1, vocab_size 13"):
        on(teams, job_of("llama"), (1, 1, 2), tmp_path)
    with pytest.raises(AssertionError, match=r"tensor=2: .*without adapter"):
        on(teams, job_of("qwen3", LORA), (1, 1, 2), tmp_path)


def test_training_goes_on_with_another_number_of_processes(teams: dict[int, Team], job_of: Any, tmp_path: Path) -> None:
    job = replace(job_of("llama"), prompts=(), generation=None)
    first, second = replace(job, batches=job.batches[:1]), replace(job, batches=job.batches[1:])
    whole = run(ALONE, job, (1, 1, 1), tmp_path / "whole")
    on(teams, first, (1, 4, 1), tmp_path / "first")
    found = on(teams, second, (1, 2, 1), tmp_path / "second", tmp_path / "first")[1]
    np.testing.assert_allclose(found.losses, whole.losses[1:], rtol=1e-6)
    np.testing.assert_allclose(found.norms, whole.norms[1:], rtol=1e-5)
    check_model(tmp_path / "second", tmp_path / "whole")


def test_bfloat16_parts_compute_what_whole_weights_do(teams: dict[int, Team], job_of: Any, tmp_path: Path) -> None:
    """Matrices travel in bfloat16, and their gradients are summed in float32."""
    job = replace(job_of("llama"), precision="bfloat16", generation=None)
    split = on(teams, job, (1, 4, 1), tmp_path / "split")[3]
    copied = on(teams, job, (4, 1, 1), tmp_path / "copied")[3]
    assert split.placement.devices == ("0 (cpu)", "1 (cpu)", "2 (cpu)", "3 (cpu)")
    np.testing.assert_allclose(split.losses, copied.losses, rtol=1e-5)
    np.testing.assert_allclose(split.norms, copied.norms, rtol=1e-3)
    np.testing.assert_allclose(split.logprobs, copied.logprobs, atol=2e-2)
