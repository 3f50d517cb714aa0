"""What a backend can do, found by trying it on models of a few thousand weights.

In: the name of a backend. Out: for each capability `yes`, or the message of the refusal. Nothing here depends on which
backend it is; results that are compared must agree, or the trial fails.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import BackendConfig
from tunix_rt.config.load import check, compose
from tunix_rt.config.model import ScratchModel
from tunix_rt.errors import TunixError
from tunix_rt.files import JsonObject
from tunix_rt.models.families.registry import FAMILIES
from tunix_rt.models.initialise import write_fresh

SIZES: JsonObject = {
    "vocab_size": 53,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 96,
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 96,
}
EXPERTS: JsonObject = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
AS_PUBLISHED: dict[str, JsonObject] = {
    "gemma3_text": {"query_pre_attn_scalar": 6, "rms_norm_eps": 1e-6},
    "mistral": {"sliding_window": None},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "olmoe": EXPERTS,
    "qwen2_moe": EXPERTS | {"shared_expert_intermediate_size": 16},
    "qwen3": {"rope_theta": 1_000_000.0},
    "qwen3_moe": EXPERTS,
}
"""Config fields that must not be left to a default."""
SCALED = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0}
SCALED |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
YES = "yes"


@dataclass(frozen=True, slots=True)
class Trial:
    """A backend under test, and a temporary folder for it."""

    backend: str
    folder: Path

    def engine(self, **changes: Any) -> Any:
        """Create the backend, with changed fields of its config (the precision, for example)."""
        from tunix_rt.backends import registry
        from tunix_rt.machine import cache_folder

        config = check(compose([f"backend={self.backend}", "hardware=cpu"]))
        backend: BackendConfig = replace(config.backend, **changes)
        return registry.create(backend, config.hardware, cache_folder())

    def model(self, family: str, **changes: Any) -> Path:
        """Write a small model of the family; returns its folder."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        config = SIZES | AS_PUBLISHED.get(family, {}) | changes | {"model_type": family}
        source = ScratchModel(kind="scratch", config=config, initializer_range=0.3, scale_residual_init=False)
        write_fresh(folder, source, 53, seed=0, pad_id=0, end_id=1)
        return folder

    def losses(self, batches: list[Batch], rows_at_once: int | None = None, **changes: Any) -> list[float]:
        """Losses of training a small Llama on the batches."""
        engine = self.engine(**changes)
        engine.rows_at_once = rows_at_once
        return train(engine, engine.load(self.model("llama"), setup()), batches)[1]


def setup() -> Any:
    """The training setup of the default config."""
    from tunix_rt.backends.interface import TrainingSetup

    return TrainingSetup(check(compose([])).optimizer, clip_norm=1.0, seed=0)


def train(engine: Any, state: Any, batches: list[Batch]) -> tuple[Any, list[float]]:
    """One update per batch; returns the state and the losses."""
    losses = []
    for batch in batches:
        state, measured = engine.train_step(state, batch, 1e-2)
        losses.append(float(engine.fetch(measured)["loss_sum"]) / batch.divisor)
    return state, losses


def packed(step: int = 0) -> Batch:
    """A batch of random rows [4, 24], each with two traces of 12 tokens."""
    random = np.random.default_rng(step)
    shape = (4, 24)
    tokens, targets = (random.integers(2, 53, shape).astype(np.int32) for _ in range(2))
    segments = np.broadcast_to(np.repeat(np.array([1, 2], np.int32), 12), shape).copy()
    positions = np.broadcast_to(np.tile(np.arange(12, dtype=np.int32), 2), shape).copy()
    weights = (random.random(shape) < 0.7).astype(np.float32)
    return Batch.supervised(tokens, targets, positions, segments, weights)


def computes(family: str, **changes: Any) -> Callable[[Trial], None]:
    """A trial: reads a model folder of the family and scores a batch."""

    def trial(trial: Trial) -> None:
        engine = trial.engine()
        found = engine.fetch(engine.logprobs(engine.load(trial.model(family, **changes), None), packed()))
        assert np.isfinite(found["logprobs"]).all()

    return trial


def declared(*words: str) -> Callable[[Trial], None]:
    """A trial: the overrides pass the config check."""

    def trial(trial: Trial) -> None:
        check(compose([f"backend={trial.backend}", *words]))

    return trial


def isolates(trial: Trial) -> None:
    """A trace packed into a row with another has the same log-probabilities as alone."""
    engine, batch = trial.engine(), packed()
    state = engine.load(trial.model("llama"), None)
    halves = (slice(0, 12), slice(12, 24))
    alone = [Batch.supervised(*(getattr(batch, name)[:, half] for name in Batch.__slots__[:-1])) for half in halves]
    apart = np.concatenate([engine.fetch(engine.logprobs(state, each))["logprobs"] for each in alone], axis=1)
    together = engine.fetch(engine.logprobs(state, batch))["logprobs"]
    np.testing.assert_allclose(together, apart, atol=2e-4)


def accumulates(trial: Trial) -> None:
    """Two micro-batches of unequal weight give the same losses as one batch."""
    batches = [packed(step) for step in range(3)]
    np.testing.assert_allclose(trial.losses(batches, rows_at_once=2), trial.losses(batches), rtol=1e-4)


def resumes(trial: Trial) -> None:
    """After saving and restoring, the losses are the same bit for bit."""
    engine, model = trial.engine(), trial.model("llama")
    state, _ = train(engine, engine.load(model, setup()), [packed(step) for step in range(2)])
    folder = Path(tempfile.mkdtemp(dir=trial.folder))
    engine.save(state, folder).result()
    later = [packed(step) for step in range(2, 5)]
    _, expected = train(engine, state, later)
    _, found = train(engine, engine.restore(folder, model, setup()), later)
    assert found == expected, (found, expected)


def recomputes(trial: Trial) -> None:
    """With gradient checkpointing the losses are the same up to rounding."""
    batches = [packed(step) for step in range(2)]
    np.testing.assert_allclose(trial.losses(batches, gradient_checkpointing=True), trial.losses(batches), rtol=1e-4)


def halves(trial: Trial) -> None:
    """bfloat16 gives losses that are close, but not equal."""
    batches = [packed(step) for step in range(2)]
    difference = np.abs(np.divide(trial.losses(batches, precision="bfloat16"), trial.losses(batches)) - 1).max()
    assert 0 < difference < 0.05, difference


def streams(trial: Trial) -> None:
    """A long answer is streamed in several pieces."""
    engine = trial.engine()
    generation = replace(check(compose([])).generation, max_new_tokens=60)
    pieces = list(engine.generate(engine.load(trial.model("llama"), None), [np.array([5, 9])], generation, [0]))
    if len(pieces) == 1 and len(pieces[0].ids) > 16:
        raise TunixError("one piece at the end")


CAPABILITIES: dict[str, Callable[[Trial], None]] = {
    **{f"`{family}`": computes(family) for family in sorted(FAMILIES)},
    "`llama` with scaled positions (Llama 3.1 and later)": computes("llama", rope_parameters=SCALED),
    "LoRA": declared("model/adapter=lora"),
    "packed rows, traces isolated": isolates,
    "micro-batches summed, divided once": accumulates,
    "resume bit for bit": resumes,
    "gradient checkpointing": recomputes,
    "bfloat16": halves,
    "sampling in batches, one seed a prompt": declared("generation=sample"),
    "answers shown as they are made": streams,
}


def capabilities(backend: str) -> dict[str, str]:
    """For each of CAPABILITIES, YES or the last line of the refusal. Starts the framework: run it in a new process."""
    found = {}
    for name, attempt in CAPABILITIES.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                attempt(Trial(backend, Path(folder)))
                found[name] = YES
            except TunixError as error:
                found[name] = next(line for line in str(error).splitlines()[::-1] if line).strip()
    return found
