"""LoRA on both backends: the same as `peft`, the same on both, of every family; frozen means frozen; exact resume."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.backends.conftest import Traces
from tests.families import CASES, write
from tunix_rt.backends.interface import AdapterSetup, Backend, TrainingSetup
from tunix_rt.backends.registry import create
from tunix_rt.backends.sampling import dropout_keys
from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.model import LoraAdapter
from tunix_rt.errors import ModelError
from tunix_rt.models.adapter import module_name
from tunix_rt.models.adapter_folder import FILES, Base, merge, read_adapter
from tunix_rt.models.content import folder_digest
from tunix_rt.models.folder import read_architecture

pytestmark = [  # what `peft` makes transformers say, and that it corrects `fan_in_fan_out` by itself
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
]
NAMES = ("jax", "torch")
SOME = {"llama": "all-linear", "gpt2": ("c_attn", "mlp.c_proj")}
"""Family → target: three pieces that lie in one part, and matrices that lie transposed and fused, not all of them."""
Both = dict[str, Backend]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Both backends, float32, one thread."""
    cache = tmp_path_factory.mktemp("compiled")
    hardware = HardwareConfig(platform="cpu", device=0, threads=1)
    return {name: create(BackendConfig(name=name, precision="float32"), hardware, cache) for name in NAMES}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each of SOME, of two layers."""
    two = {"llama": {"num_hidden_layers": 2}, "gpt2": {"n_layer": 2}}
    cases = {name: replace(CASES[name], changes=CASES[name].changes | two[name]) for name in SOME}
    return {name: write(tmp_path_factory.mktemp("base"), case) for name, case in cases.items()}


@pytest.fixture(scope="module", params=SOME)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def batch(traces: Traces, batch_of: Any) -> Batch:
    """Two micro-batches of packed rows."""
    built: Batch = batch_of([[traces[0:2], traces[2:4]], [traces[4:6], traces[6:8]]], 40)
    return built


def lora(**changes: Any) -> LoraAdapter:
    values: dict[str, Any] = {"kind": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.0, "target": "all-linear"}
    return LoraAdapter(**(values | {"rslora": False, "path": None} | changes))


@pytest.fixture(scope="module")
def setup_of(adamw: Callable[..., Any]) -> Callable[..., TrainingSetup]:
    """(base folder, changes of the adapter) → what training is told; without clipping."""

    def build(base: Path, **changes: Any) -> TrainingSetup:
        return TrainingSetup(adamw(), None, 7, AdapterSetup(lora(**changes), Base.of(base, folder_digest(base))))

    return build


def trained(backend: Backend, state: Any, batch: Batch, steps: int, folder: Path) -> tuple[list[float], Path]:
    """Losses of a few updates, and where their state was saved."""
    losses = []
    for _ in range(steps):
        state, measured = backend.train_step(state, batch, 1e-2)
        numbers = backend.fetch(measured)
        losses.append(float(numbers["loss_sum"]) / float(numbers["weight_sum"]))
    folder.mkdir(parents=True)
    backend.save(state, folder).result()
    return losses, folder


def opened(base: Path) -> Any:
    """The model as plain `transformers` opens it."""
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager").eval()


def with_peft(base: Path, adapter: Path) -> Any:
    """The model as plain `peft` opens it."""
    import peft

    return peft.PeftModel.from_pretrained(opened(base), adapter).eval()


def reference(model: Any, batch: Batch) -> Any:
    """Log-probabilities of the targets of the first trace of each row, by transformers."""
    found = []
    for tokens, targets, segments in zip(
        *(x.reshape(-1, 40) for x in (batch.tokens, batch.targets, batch.segments)), strict=True
    ):
        first = segments == 1
        with torch.no_grad():
            logits = model(input_ids=torch.tensor(tokens[first][None], dtype=torch.long)).logits[0].log_softmax(-1)
        found.append(logits.gather(-1, torch.tensor(targets[first], dtype=torch.long)[:, None])[:, 0].numpy())
    return np.concatenate(found)


def ours(backend: Backend, base: Path, adapter: Path | None, batch: Batch) -> Any:
    """The same by us. (All adapters here have one scaling, 2, so that jax compiles once.)"""
    state = backend.load(base, None, adapter)
    whole = replace(batch, weights=(batch.segments > 0).astype(np.float32))
    return backend.fetch(backend.logprobs(state, whole))["logprobs"][batch.segments == 1]


def relative(found: Any, expected: Any) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


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


PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "a layer": ("llama", {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": 1}),
    "layers, by a pattern": (
        "gpt2",
        {"target_modules": ["c_attn"], "layers_to_transform": [0], "layers_pattern": ["h", "layers"]},
    ),
    "an expression": ("llama", {"target_modules": r".*\.1\.(self_attn\.[qv]_proj|mlp\.up_proj)"}),
    "whole names": (
        "llama",
        {"target_modules": ["model.layers.0.self_attn.k_proj", "model.layers.1.self_attn.v_proj", "0.mlp.down_proj"]},
    ),
    "excluded": ("llama", {"target_modules": "all-linear", "exclude_modules": ["v_proj", "layers.0.mlp.up_proj"]}),
    "ranks": (
        "llama",
        {"target_modules": "all-linear", "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\..*": 6}}
        | {"alpha_pattern": {"model.layers.0.self_attn.v_proj": 3, "o_proj": 1}, "exclude_modules": ["gate_proj"]},
    ),
    "ranks of GPT-2": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "rank_pattern": {"0.attn.c_proj": 7}}),
    "ranks, rslora": ("llama", {"target_modules": ["q_proj"], "rank_pattern": {"0.*": 2}, "use_rslora": True}),
}


@pytest.mark.parametrize("name", PARTS)
def test_an_adapter_on_parts_of_the_model(
    name: str, both: Both, bases: dict[str, Path], setup_of: Any, batch: Batch, tmp_path: Path
) -> None:
    """Some layers or names only, ranks and alphas of their own: computed, trained and saved, merged, gone on with."""
    import peft

    family, chosen = PARTS[name]
    base, theirs = bases[family], tmp_path / "theirs"
    config = peft.LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, task_type="CAUSAL_LM", **chosen)
    made = peft.get_peft_model(opened(base), config).eval()
    made.save_pretrained(theirs)
    expected = reference(made, batch)
    merge(theirs, base, tmp_path / "merged")
    np.testing.assert_allclose(reference(opened(tmp_path / "merged"), batch), expected, atol=1e-4)
    adapter, _ = read_adapter(theirs, read_architecture(base))
    target = tuple(module_name(module) for module in adapter.modules)
    setup = setup_of(base, target=target, rslora=adapter.rslora, path=str(theirs))
    losses = {}
    for backend_name, backend in both.items():
        np.testing.assert_allclose(ours(backend, base, theirs, batch), expected, atol=1e-4)
        losses[backend_name], folder = trained(backend, backend.load(base, setup), batch, 2, tmp_path / backend_name)
        assert load_file(folder / "adapter_model.safetensors").keys() == adapter.shapes.keys()
        np.testing.assert_allclose(
            ours(backend, base, folder, batch), reference(with_peft(base, folder), batch), atol=1e-4
        )
        on, _ = trained(backend, backend.restore(folder, base, setup), batch, 1, tmp_path / f"{backend_name} on")
        assert on[0] < losses[backend_name][0]
        losses[backend_name] += on
    np.testing.assert_allclose(losses["jax"], losses["torch"], rtol=1e-5)


def test_going_on_from_an_adapter_needs_the_base_it_belongs_to(
    learnt: Any, both: Both, bases: dict[str, Path], family: str, setup_of: Any, tmp_path: Path
) -> None:
    """Prevents: an adapter trained further on a base of the same shapes and other weights."""
    (_, folder), other = learnt["torch", 1], tmp_path / "other"
    shutil.copytree(bases[family], other)
    stored = {file: load_file(file) for file in other.glob("*.safetensors")}
    for file, tensors in stored.items():
        save_file({name: tensor + 1 for name, tensor in tensors.items()}, file, metadata={"format": "pt"})
    for name, backend in both.items():
        with pytest.raises(ModelError, match=r"other: not the model that the adapter .* was trained on"):
            backend.load(other, setup_of(other, target=SOME[family], path=str(folder)))
        assert backend.load(bases[family], setup_of(bases[family], target=SOME[family], path=str(folder))), name


@pytest.mark.filterwarnings("ignore:.* changes the base weights of the model:UserWarning")
@pytest.mark.parametrize("kind", ["pissa", "olora"])
def test_an_adapter_that_changed_its_base_is_refused_and_peft_s_conversion_of_it_computed(
    kind: str, both: Both, bases: dict[str, Path], batch: Batch, tmp_path: Path
) -> None:
    """Added to the base as it is, it would be off by its first B A: 0.1 in these log-probabilities."""
    import peft

    base, torch_backend = bases["llama"], both["torch"]
    config = peft.LoraConfig(
        r=4, lora_alpha=4, target_modules=["q_proj", "up_proj"], init_lora_weights=kind, task_type="CAUSAL_LM"
    )
    made = peft.get_peft_model(opened(base), config).eval()
    made.peft_config["default"].init_lora_weights = True  # as peft's documentation saves the initial adapter
    made.save_pretrained(tmp_path / "initial")
    made.peft_config["default"].init_lora_weights = kind
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.1)
    expected = reference(made, batch)
    made.save_pretrained(tmp_path / "as_it_is")
    made.save_pretrained(tmp_path / "plain", path_initial_model_for_weight_conversion=str(tmp_path / "initial"))
    with pytest.raises(ModelError, match=rf"init_lora_weights: '{kind}' changes the base's weights"):
        ours(torch_backend, base, tmp_path / "as_it_is", batch)
    np.testing.assert_allclose(ours(torch_backend, base, tmp_path / "plain", batch), expected, atol=1e-4)


def test_merged_it_is_a_model_that_transformers_opens_and_that_answers_alike(
    family: str, learnt: Any, both: Both, bases: dict[str, Path], batch: Batch, tmp_path: Path, decoding: Any
) -> None:
    base, (_, folder) = bases[family], learnt["torch", 3]
    merge(folder, base, tmp_path / "merged")
    found = reference(opened(tmp_path / "merged"), batch)
    np.testing.assert_allclose(found, ours(both["torch"], base, folder, batch), atol=1e-4)
    prompts = [row[:length].astype(np.int32) for row, length in zip(batch.tokens[0], (3, 5), strict=True)]
    for name in NAMES if family == "llama" else ("torch",):
        answers = []
        for state in (both[name].load(base, None, folder), both[name].load(tmp_path / "merged", None)):
            pieces = list(both[name].generate(state, prompts, decoding(max_new_tokens=12), [0, 1]))
            answers.append([np.concatenate([p.ids for p in pieces if p.index == i]).tolist() for i in range(2)])
        assert answers[0] == answers[1]
        assert any(answers[0])


def test_going_on_is_exact_and_crosses_backends_with_dropout(
    both: Both, bases: dict[str, Path], setup_of: Any, batch: Batch, tmp_path: Path
) -> None:
    """The masks are a function of the step, so a killed run meets those that it would have met."""
    base = bases["llama"]
    setup = setup_of(base, dropout=0.3)
    losses = {}
    for name, backend in both.items():
        losses[name], through = trained(backend, backend.load(base, setup), batch, 4, tmp_path / name / "4")
        _, half = trained(backend, backend.load(base, setup), batch, 2, tmp_path / name / "2")
        again, resumed = trained(backend, backend.restore(half, base, setup), batch, 2, tmp_path / name / "on")
        assert again == losses[name][2:]
        for file in ("adapter_model.safetensors", "optimizer.safetensors"):
            assert (through / file).read_bytes() == (resumed / file).read_bytes()
    np.testing.assert_allclose(losses["jax"], losses["torch"], rtol=1e-5, err_msg="the masks are the same")
    for name, other in (NAMES, NAMES[::-1]):
        on, _ = trained(
            both[other], both[other].restore(tmp_path / name / "2", base, setup), batch, 2, tmp_path / f"x{name}"
        )
        np.testing.assert_allclose(on, losses[name][2:], rtol=1e-5)
    without = trained(both["torch"], both["torch"].load(base, setup_of(base)), batch, 2, tmp_path / "without")[0]
    assert abs(without[1] / losses["torch"][1] - 1) > 1e-4, "nothing was left out"


def test_masks_are_even_and_differ_from_matrix_to_matrix() -> None:
    """As the hash is written down, in plain integers; and as both backends compute it."""
    import jax.numpy as jnp

    from tunix_rt.backends.jax.adapter import dropped as jax_dropped
    from tunix_rt.backends.torch.adapter import dropped as torch_dropped

    keys = dropout_keys(seed=3, step=5, num_micro_batches=2, names=["a", "b"])
    assert keys.shape == (2, 2, 2)
    assert len({tuple(key) for key in keys.reshape(-1, 2).tolist()}) == 4
    share, kept = 0.25, []
    for key in keys.reshape(-1, 2):
        expected = np.array([_mixed(i, *key.tolist()) >= share * 2**32 for i in range(4000)])
        x = np.ones((40, 100), np.float32)
        for found in (np.asarray(jax_dropped(jnp.asarray(x), key, share)), torch_dropped(torch.tensor(x), key, share)):
            np.testing.assert_allclose(np.asarray(found).reshape(-1), expected / (1 - share), rtol=1e-6)
        kept.append(expected)
        assert abs(expected.mean() - 0.75) < 0.03
    assert np.abs(np.corrcoef(kept) - np.eye(4)).max() < 0.06


def _mixed(i: int, first: int, second: int) -> int:
    i ^= first
    i = ((i ^ (i >> 16)) * 0x85EBCA6B) % 2**32 ^ second
    i = ((i ^ (i >> 13)) * 0xC2B2AE35) % 2**32
    return i ^ (i >> 16)


@pytest.mark.parametrize("name", NAMES)
def test_in_bfloat16_the_matrices_of_the_base_take_half_the_memory(
    name: Any, bases: dict[str, Path], setup_of: Any, batch: Batch, tmp_path: Path
) -> None:
    """They are kept as they multiply; norms, embeddings and the adapter stay float32."""
    base = bases["llama"]
    hardware = HardwareConfig(platform="cpu", device=0, threads=1)
    half = create(BackendConfig(name=name, precision="bfloat16"), hardware, tmp_path / "compiled")
    state = half.load(base, setup_of(base))
    if name == "torch":
        frozen, laid = state.model.weights, state.model.trained
        losses, _ = trained(half, state, batch, 3, tmp_path / "half")
        assert losses[-1] < losses[0]
    else:
        frozen, laid = state.frozen["layers"] | {"embedding": state.frozen["embedding"]}, state.params["layers"]
    halves = {key for key, value in frozen.items() if str(value.dtype).endswith("bfloat16")}
    assert halves == {key for key in frozen if "norm" not in key and "embed" not in key and "head" not in key}
    assert all(str(value.dtype).endswith("float32") for key, value in laid.items())
