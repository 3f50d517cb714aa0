"""LoRA on real weights and real data, on both backends; each one's model opened by the other and by plain libraries.

`tests/acceptance/run -k test_real_weights`; some twenty minutes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import config_of
from tests.pipeline.conftest import made_in
from tunix_rt.backends.registry import create
from tunix_rt.batches.reader import Reader
from tunix_rt.models.adapter_merge import merge

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]
BACKENDS = ("jax", "torch")
NUM_ASKED = 6
"""Of the test prompts, by each reader of each model."""
Answers = dict[str, str]


def lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module", autouse=True)
def _compiled_as_for_a_person() -> Iterator[None]:
    """These programs run long enough to be worth their compilation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("XLA_FLAGS")
        yield


@pytest.fixture(scope="module")
def words(corpora: Path) -> list[str]:
    data = corpora / "gsm8k"
    paths = [f"dataset.source.{split}.path={data / split}.jsonl" for split in ("train", "test")]
    return ["+experiment=smollm2_gsm8k_lora", "hardware=cpu", "tracking=none", *paths]


@pytest.fixture(scope="module")
def runs(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run folder of each backend, in one working directory, so that the prepared data are the same files."""
    folder, found = tmp_path_factory.mktemp("gsm8k"), {}
    for backend in BACKENDS:
        made_in(folder, *words, f"backend={backend}", f"name={backend}")
        (status,) = (folder / "runs" / backend).glob("*/status.json")
        found[backend] = status.parent
    return found


def base_of(run: Path) -> Path:
    """The model that training began with; its address is relative to where the command was typed."""
    config = json.loads((run / "model" / "adapter_config.json").read_text("utf-8"))
    return run.parents[2] / str(config["base_model_name_or_path"])


def test_what_it_learns(runs: dict[str, Path]) -> None:
    """No accuracy is promised: every prompt has its line, the form is learned, and the losses fall."""
    for backend, run in runs.items():
        before, after = (json.loads((run / f"{kind}metrics.json").read_text("utf-8")) for kind in ("baseline_", ""))
        for metrics in (before, after):
            assert (metrics["n"], metrics["missing"], metrics["error_rate"]["k"]) == (200, 0, 0)
        kept = ("accuracy", "stop_rate", "malformed_rate")
        print(backend, {name: (before[name], after[name]) for name in kept})
        assert after["malformed_rate"]["k"] < before["malformed_rate"]["k"]


def test_the_losses_agree_step_by_step(runs: dict[str, Path]) -> None:
    curves = [
        np.array([line["train/loss"] for line in lines(run / "metrics.jsonl") if "train/loss" in line])
        for run in runs.values()
    ]
    difference = np.abs(curves[0] / curves[1] - 1).max()
    print(f"{len(curves[0])} steps, largest relative difference of the losses {difference:.1e}")
    assert len(curves[0]) == len(curves[1]) > 25
    assert difference < 1e-4
    half = len(curves[0]) // 2
    assert np.mean(curves[0][half:]) < 0.98 * np.mean(curves[0][:half])


@pytest.mark.parametrize("trained_by", BACKENDS)
def test_its_model_answers_alike_everywhere(trained_by: str, runs: dict[str, Path], tmp_path: Path) -> None:
    """By the other backend, by plain `peft`, and merged by plain `transformers`: greedy, word for word."""
    import peft
    import transformers

    run = runs[trained_by]
    asked = lines(run / "predictions.jsonl")[:NUM_ASKED]
    expected = {line["prompt"]: line["completion"] for line in asked}
    base = base_of(run)
    other = BACKENDS[1 - BACKENDS.index(trained_by)]
    assert by_backend(other, base, run / "model", expected) == expected, other
    adapted = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), run / "model")
    assert by_transformers(adapted, run / "model", expected) == expected, "peft"
    merge(run / "model", base, tmp_path / "merged")
    whole = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert by_transformers(whole, tmp_path / "merged", expected) == expected, "transformers"


def by_backend(name: str, base: Path, adapter: Path, prompts: Answers) -> Answers:
    config = config_of(["+experiment=smollm2_gsm8k_lora", f"backend={name}", "hardware=cpu"])
    engine = create(config.backend, config.hardware, base.parent / "compiled")
    reader = Reader.of(base, config.format)
    ids = [np.array(reader.tokenizer.encode(prompt).ids, np.int32) for prompt in prompts]
    generation = replace(config.generation, batch_size=NUM_ASKED)
    found: list[list[int]] = [[] for _ in ids]
    for piece in engine.generate(engine.load(base, None, adapter), ids, generation, range(len(ids))):
        found[piece.index] += piece.ids.tolist()
    return {prompt: reader.tokenizer.decode(answer) for prompt, answer in zip(prompts, found, strict=True)}


def by_transformers(model: Any, folder: Path, prompts: Answers) -> Answers:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = {}
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False, add_special_tokens=False)
        made = model.eval().generate(**ids, max_new_tokens=128, do_sample=False)[0, ids["input_ids"].shape[1] :]
        found[prompt] = tokenizer.decode(made, skip_special_tokens=True)
    return found
