"""LoRA on both backends: the same as `peft`, the same on both, of every family; frozen means frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.backends.lora.conftest import NAMES, SOME, Both, opened, ours, reference, relative, trained, with_peft
from tunix_rt.backends.torch import linear
from tunix_rt.batches.batch import Batch
from tunix_rt.models.adapter_folder import FILES
from tunix_rt.models.adapter_merge import merge

pytestmark = [  # what `peft` makes transformers say, and that it corrects `fan_in_fan_out` by itself
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
]


@pytest.fixture(scope="module")
def learnt(
    family: str, both: Both, bases: dict[str, Path], setup_of: Any, batch: Batch, tmp_path_factory: Any
) -> dict[tuple[str, int], tuple[list[float], Path]]:
    """(backend, updates) → losses and folder: of one update and of three."""
    setup, root = setup_of(bases[family], target=SOME[family]), tmp_path_factory.mktemp("learnt")
    return {
        (name, steps): trained(backend, backend.load(bases[family], setup), batch, steps, root / name / str(steps))
        for name, backend in both.items()
        for steps in (1, 3)
    }


def test_both_learn_alike(learnt: Any) -> None:
    """Step by step: loss 1e-5, gradients 1e-4, updates 5e-4; nothing but the adapter is saved."""
    losses = {name: learnt[name, 3][0] for name in NAMES}
    np.testing.assert_allclose(losses["jax"], losses["torch"], rtol=1e-5)
    assert losses["torch"][-1] < 0.98 * losses["torch"][0], "nothing was learned"
    folders = {name: learnt[name, 1][1] for name in NAMES}
    for folder in folders.values():
        assert {file.name for file in folder.iterdir()} == {*FILES, "optimizer.safetensors"}
    moments = {name: load_file(folder / "optimizer.safetensors") for name, folder in folders.items()}
    weights = {name: load_file(folder / "adapter_model.safetensors") for name, folder in folders.items()}
    assert set(moments["jax"]) == set(moments["torch"])
    for key, expected in weights["torch"].items():
        gradients = {name: found[f"m.{key}"] for name, found in moments.items()}
        if "lora_B" in key:
            assert relative(gradients["jax"], gradients["torch"]) < 1e-4, key
            assert relative(weights["jax"][key], expected) < 5e-4, key
        else:  # B is zero at the start, and so is the gradient of A
            assert not gradients["jax"].any() and not gradients["torch"].any(), key


@pytest.mark.skipif(not linear.HAS_ONEDNN, reason="this torch multiplies by MKL alone")
def test_large_products_learn_alike(
    family: str,
    learnt: Any,
    both: Both,
    bases: dict[str, Path],
    setup_of: Any,
    batch: Batch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the CPU they are oneDNN's; the adapter adds to them in place."""
    monkeypatch.setattr(linear, "SMALLEST", 0)
    backend, base = both["torch"], bases[family]
    state = backend.load(base, setup_of(base, target=SOME[family]))
    losses, _ = trained(backend, state, batch, 3, tmp_path / "large")
    np.testing.assert_allclose(losses, learnt["torch", 3][0], rtol=1e-5)


def test_peft_computes_what_either_saved(
    family: str, learnt: Any, both: Both, bases: dict[str, Path], batch: Batch
) -> None:
    base = bases[family]
    untrained = ours(both["torch"], base, None, batch)
    for name in NAMES:
        folder = learnt[name, 3][1]
        expected = reference(with_peft(base, folder), batch)
        assert np.abs(expected - untrained).max() > 0.01, "the adapter changes nothing"
        for reader, backend in both.items():
            np.testing.assert_allclose(ours(backend, base, folder, batch), expected, atol=1e-4, err_msg=reader)


def test_an_adapter_from_elsewhere_is_computed_and_trained_on(
    family: str, both: Both, bases: dict[str, Path], setup_of: Any, batch: Batch, tmp_path: Path
) -> None:
    """`peft` makes one with a random B, scaled by the square root of its rank."""
    import peft

    base, target = bases[family], SOME[family]
    wanted = target if isinstance(target, str) else list(target)
    config = peft.LoraConfig(
        r=4, lora_alpha=4, use_rslora=True, target_modules=wanted, init_lora_weights=False, task_type="CAUSAL_LM"
    )
    made = peft.get_peft_model(opened(base), config).eval()
    made.save_pretrained(tmp_path / "theirs")
    expected = reference(made, batch)
    setup = setup_of(base, target=target, alpha=4.0, rslora=True, path=str(tmp_path / "theirs"))
    losses = {}
    for name, backend in both.items():
        np.testing.assert_allclose(ours(backend, base, tmp_path / "theirs", batch), expected, atol=1e-4)
        losses[name], folder = trained(backend, backend.load(base, setup), batch, 2, tmp_path / name)
        assert losses[name][1] < losses[name][0]
        continued = reference(with_peft(base, folder), batch)
        np.testing.assert_allclose(ours(backend, base, folder, batch), continued, atol=1e-4)
    np.testing.assert_allclose(losses["jax"], losses["torch"], rtol=1e-5)


def test_merged_it_is_a_model_that_transformers_opens_and_that_answers_alike(
    family: str, learnt: Any, both: Both, bases: dict[str, Path], batch: Batch, tmp_path: Path, decoding: Any
) -> None:
    base, (_, folder) = bases[family], learnt["torch", 3]
    merge(folder, base, tmp_path / "merged")
    found = reference(opened(tmp_path / "merged"), batch)
    np.testing.assert_allclose(found, ours(both["torch"], base, folder, batch), atol=1e-4)
    prompts = [row[:length].astype(np.int32) for row, length in zip(batch.tokens[:2], (3, 5), strict=True)]
    for name in NAMES if family == "llama" else ("torch",):
        answers = []
        for state in (both[name].load(base, None, folder), both[name].load(tmp_path / "merged", None)):
            pieces = list(both[name].generate(state, prompts, decoding(max_new_tokens=12), [0, 1]))
            answers.append([np.concatenate([p.ids for p in pieces if p.index == i]).tolist() for i in range(2)])
        assert answers[0] == answers[1]
        assert any(answers[0])


@pytest.mark.parametrize("name", NAMES)
def test_without_its_adapter_a_trained_state_says_what_the_base_says(
    name: str, both: Both, bases: dict[str, Path], setup_of: Any, batch: Batch
) -> None:
    backend, base = both[name], bases["llama"]
    state, _ = backend.train_step(backend.load(base, setup_of(base)), batch, 1e-1)
    whole, bare = (backend.fetch(backend.logprobs(state, batch, adapter=on))["logprobs"] for on in (True, False))
    alone = backend.load(base, None)
    expected = backend.fetch(backend.logprobs(alone, batch))["logprobs"]
    assert np.array_equal(bare, expected) and not np.allclose(whole, expected, atol=1e-2)
    with pytest.raises(ValueError, match="no adapter to leave out"):
        backend.logprobs(alone, batch, adapter=False)
