"""The two backends compute the same: step by step, along the curve, in what they save and in what they answer.

Tolerances are those of the design (float32). Every comparison of a curve has a control, without which it would
prove nothing: training is chaotic, and where one weight moved by one ulp changes the curve, nothing can agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tunix_rt.backends.interface import Backend, State
from tunix_rt.backends.sampling import uniforms
from tunix_rt.batches.batch import Batch
from tunix_rt.config.results import GenerationConfig
from tunix_rt.files import read_json, write_json

pytestmark = pytest.mark.slow
NUM_STEPS = 200
POINTS = (*range(0, 20, 4), *range(20, NUM_STEPS, 20), NUM_STEPS - 1)
Both = dict[str, Backend]
OTHER = {"jax": "torch", "torch": "jax"}


def relative(found: Any, expected: Any) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def curve(backend: Backend, state: State, batch_at: Callable[[int], Batch], rates: Sequence[float]) -> Any:
    """Losses float64 [len(rates)] of training `state` with these rates."""
    measured = []
    for step, rate in enumerate(rates):
        batch = batch_at(step)
        state, numbers = backend.train_step(state, batch, rate)
        measured.append((numbers, batch.divisor))
    fetched = [(backend.fetch(numbers), divisor) for numbers, divisor in measured]
    assert all(numbers["finite"] for numbers, _ in fetched)
    return np.array([float(numbers["loss_sum"]) / divisor for numbers, divisor in fetched])


def saved(backend: Backend, state: State, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(state, folder).result()
    return folder


@pytest.fixture(scope="module")
def trajectory(recipe: Any, both: Both, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[int, Path], Any]:
    """The quickstart's first 200 steps on torch: a checkpoint before each of POINTS and one at the end; losses."""
    backend, root = both["torch"], tmp_path_factory.mktemp("trajectory")
    state, checkpoints, losses = backend.load(recipe.model, recipe.setup()), {}, []
    batch_at = recipe.batch_at()
    for step in range(NUM_STEPS):
        if step in POINTS:
            checkpoints[step] = saved(backend, state, root / str(step))
        batch = batch_at(step)
        state, measured = backend.train_step(state, batch, recipe.rate_at(step + 1))
        losses.append(float(backend.fetch(measured)["loss_sum"]) / batch.divisor)
    checkpoints[NUM_STEPS] = saved(backend, state, root / "last")
    assert losses[-1] < 0.5 * losses[0], "nothing was learned: the points would all be alike"
    return checkpoints, np.array(losses)


def test_one_step_from_the_same_state(
    recipe: Any, both: Both, trajectory: Any, read_state: Callable[[Path], Any], tmp_path: Path
) -> None:
    """At points of the quickstart's own course: loss 1e-5, each gradient 1e-4, each tensor's update 5e-4."""
    checkpoints, _ = trajectory
    batch_at = recipe.batch_at()
    worst = {"loss": 0.0, "gradient": 0.0, "update": 0.0}
    for step in POINTS:
        before = load_file(checkpoints[step] / "model.safetensors")
        losses, gradients, updates = {}, {}, {}
        for name, backend in both.items():
            fresh = backend.load(checkpoints[step], recipe.setup(clip=False))
            batch = batch_at(step)
            fresh, measured = backend.train_step(fresh, batch, recipe.rate_at(step + 1))
            losses[name] = float(backend.fetch(measured)["loss_sum"]) / batch.divisor
            moments = read_state(saved(backend, fresh, tmp_path / name))
            gradients[name] = {key: value for key, value in moments.items() if key.startswith("m.")}
            state = backend.restore(checkpoints[step], recipe.model, recipe.setup())
            state, _ = backend.train_step(state, batch_at(step), recipe.rate_at(step + 1))
            after = load_file(saved(backend, state, tmp_path / name) / "model.safetensors")
            updates[name] = {key: after[key] - before[key] for key in before}
        worst["loss"] = max(worst["loss"], abs(losses["jax"] / losses["torch"] - 1))
        for kind, values in (("gradient", gradients), ("update", updates)):
            for key in values["torch"]:
                worst[kind] = max(worst[kind], relative(values["jax"][key], values["torch"][key]))
    print(f"largest relative differences over {len(POINTS)} points: {worst}")
    assert worst["loss"] < 1e-5
    assert worst["gradient"] < 1e-4
    assert worst["update"] < 5e-4


def test_the_first_50_steps_of_the_quickstart(recipe: Any, both: Both, trajectory: Any) -> None:
    """At its own rate of 3e-3; beyond, training is chaotic."""
    rates = [recipe.rate_at(step) for step in range(1, 51)]
    found = curve(both["jax"], both["jax"].load(recipe.model, recipe.setup()), recipe.batch_at(), rates)
    difference = np.abs(found / trajectory[1][:50] - 1).max()
    print(f"largest relative difference over 50 steps at 3e-3: {difference:.1e}")
    assert difference < 1e-4


def moved_by_an_ulp(source: Path, folder: Path) -> Path:
    """The model with one weight, of ordinary size, moved to the next float32."""
    weights = load_file(source / "model.safetensors")
    matrix = weights["model.layers.0.mlp.up_proj.weight"]
    matrix[3, 5] = np.nextafter(matrix[3, 5], np.float32(1), dtype=np.float32)
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    write_json(folder / "config.json", read_json(source / "config.json"))
    return folder


@pytest.mark.acceptance  # 200 steps on both; one step and the golden losses stay
def test_whole_curves_at_a_rate_where_they_can_agree(recipe: Any, both: Both, tmp_path: Path) -> None:
    """200 steps at 1e-3: jax, torch, and torch with the same traces packed in pairs and accumulated, to 1e-4.

    The control, one weight moved by one ulp, must stay below 1e-5; else the recipe is chaotic and this test void.
    """
    rates = [recipe.rate_at(step, peak=1e-3) for step in range(1, NUM_STEPS + 1)]
    jax, torch_ = both["jax"], both["torch"]
    expected = curve(torch_, torch_.load(recipe.model, recipe.setup()), recipe.batch_at(), rates)
    moved = moved_by_an_ulp(recipe.model, tmp_path / "moved")
    control = curve(torch_, torch_.load(moved, recipe.setup()), recipe.batch_at(), rates)
    other = curve(jax, jax.load(recipe.model, recipe.setup()), recipe.batch_at(), rates)
    packed_at = recipe.batch_at(row_length=144)
    assert packed_at(0).tokens.shape == (8, 144)
    torch_.rows_at_once = 4
    packed = curve(torch_, torch_.load(recipe.model, recipe.setup()), packed_at, rates)
    torch_.rows_at_once = None
    worst = {
        name: np.abs(values / expected - 1).max()
        for name, values in (("control", control), ("jax", other), ("packed and accumulated", packed))
    }
    print(f"largest relative differences over {NUM_STEPS} steps at 1e-3: {worst}")
    assert 0 < worst["control"] < 1e-5, "void: one ulp changes the curve too much, or not at all"
    assert worst["jax"] < 1e-4
    assert worst["packed and accumulated"] < 1e-4


@pytest.mark.parametrize("first", ["jax", "torch"])
def test_a_checkpoint_of_one_is_continued_by_the_other(
    recipe: Any, both: Both, read_state: Callable[[Path], Any], tmp_path: Path, first: str
) -> None:
    """What the other reads and writes again is bit for bit the same; and training goes on as if not moved."""
    one, other = both[first], both[OTHER[first]]
    batch_at = recipe.batch_at()
    rates = [recipe.rate_at(step) for step in range(1, 21)]
    state = one.load(recipe.model, recipe.setup())
    for step in range(10):
        state, _ = one.train_step(state, batch_at(step), rates[step])
    folder = saved(one, state, tmp_path / "one")
    taken = other.restore(folder, recipe.model, recipe.setup())
    again = read_state(saved(other, taken, tmp_path / "again"))
    for name, value in read_state(folder).items():
        assert again[name].dtype == value.dtype
        np.testing.assert_array_equal(again[name], value, err_msg=name)
    assert again["count"] == 10
    expected = curve(one, state, lambda step: batch_at(step + 10), rates[10:])
    found = curve(other, taken, lambda step: batch_at(step + 10), rates[10:])
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.fixture(scope="module")
def prompts(recipe: Any) -> list[Any]:
    """32 prompts of mixed length: traces of the quickstart cut at different places."""
    from tunix_rt.batches.encoded import EncodedDataset

    dataset = EncodedDataset.open(recipe.data.encoded("validation"))
    return [np.array(dataset.sequence(i)[0][: 6 + i % 9], np.int32) for i in range(32)]


def texts(backend: Backend, state: State, prompts: Sequence[Any], generation: GenerationConfig) -> list[Any]:
    """(ids, log-probabilities, reason) of each prompt; its seed is its place."""
    found: list[Any] = [([], [], None) for _ in prompts]
    for piece in backend.generate(state, prompts, generation, range(len(prompts))):
        ids, logprobs, _ = found[piece.index]
        found[piece.index] = (ids + piece.ids.tolist(), logprobs + piece.logprobs.tolist(), piece.finish_reason)
    return found


def decoding(**changes: Any) -> GenerationConfig:
    values = {
        "split": "test",
        "max_new_tokens": 40,
        "temperature": 0.0,
        "top_k": None,
        "top_p": None,
        "num_return_sequences": 1,
        "batch_size": 32,
        "baseline": False,
        "max_error_rate": 0.0,
    }
    return GenerationConfig(**(values | changes))


def excused(model: Any, ids: list[int], generation: GenerationConfig, uniform: float) -> bool:
    """Whether transformers too finds the choice after `ids` too close to call: top-two gap, or a boundary."""
    from transformers.generation import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper

    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[:, -1].double()
    if generation.temperature == 0:
        first, second = logits[0].topk(2).values.tolist()
        return bool(first - second < 1e-4)
    warpers = LogitsProcessorList()
    if generation.top_k is not None:
        warpers.append(TopKLogitsWarper(generation.top_k))
    if generation.top_p is not None:
        warpers.append(TopPLogitsWarper(generation.top_p))
    edges = warpers(torch.zeros(1, 0).long(), logits / generation.temperature).softmax(-1).cumsum(-1)
    return bool((edges - uniform).abs().min() < 1e-5)


def differences(ids: Sequence[list[int]]) -> Iterator[int]:
    """Where two answers first differ."""
    if ids[0] != ids[1]:
        shorter = min(len(ids[0]), len(ids[1]))
        yield next((i for i in range(shorter) if ids[0][i] != ids[1][i]), shorter)


@pytest.mark.parametrize(
    "generation",
    [decoding(), decoding(temperature=1.0), decoding(temperature=1.5, top_k=12, top_p=0.95)],
    ids=["greedy", "sampled", "filtered"],
)
def test_both_write_the_same_text(
    both: Both, trajectory: Any, prompts: list[Any], generation: GenerationConfig
) -> None:
    """From one checkpoint, half-trained so that the text is uncertain; each exception is looked at and counted."""
    import transformers

    folder = trajectory[0][NUM_STEPS]
    model = transformers.LlamaForCausalLM.from_pretrained(folder)
    answers = {name: texts(backend, backend.load(folder, None), prompts, generation) for name, backend in both.items()}
    exceptions = 0
    for index, (prompt, one, other) in enumerate(zip(prompts, answers["jax"], answers["torch"], strict=True)):
        for place in differences((one[0], other[0])):
            uniform = float(uniforms([index], place + 1)[0, -1])
            assert excused(model, [*prompt.tolist(), *one[0][:place]], generation, uniform), (index, place)
            exceptions += 1
        if one[0] == other[0]:
            assert one[2] == other[2]
            np.testing.assert_allclose(one[1], other[1], atol=2e-4)
    print(f"{exceptions} of {len(prompts)} texts differ, each at a choice too close to call")
    assert exceptions <= 2
    assert sum(len(ids) for ids, _, _ in answers["torch"]) > 400


def test_log_probabilities_four_ways(both: Both, trajectory: Any, prompts: list[Any]) -> None:
    """One pass and the cached path, on both backends, against transformers."""
    import transformers

    folder = trajectory[0][NUM_STEPS]
    model = transformers.LlamaForCausalLM.from_pretrained(folder)
    states = {name: backend.load(folder, None) for name, backend in both.items()}
    sampled = decoding(temperature=1.0)
    cached = {name: texts(backend, states[name], prompts[:16], sampled) for name, backend in both.items()}
    rows = [np.concatenate([p, ids]).astype(np.int32) for p, (ids, _, _) in zip(prompts, cached["torch"], strict=False)]
    shape = (16, 72)
    tokens, targets, segments, positions = (np.zeros(shape, np.int32) for _ in range(4))
    for i, row in enumerate(rows):
        end = len(row) - 1
        tokens[i, :end], targets[i, :end] = row[:-1], row[1:]
        segments[i, :end], positions[i, :end] = 1, np.arange(end)
    batch = Batch.supervised(tokens, targets, positions, segments, segments.astype(np.float32))
    scored = {name: both[name].fetch(both[name].logprobs(states[name], batch))["logprobs"] for name in both}
    for i, row in enumerate(rows):
        with torch.no_grad():
            logits = model(torch.from_numpy(row).long()[None, :-1]).logits[0].log_softmax(-1).numpy()
        begin = len(prompts[i]) - 1
        expected = logits[np.arange(len(row) - 1), row[1:]][begin:]
        for name in both:
            np.testing.assert_allclose(scored[name][i, begin : len(row) - 1], expected, atol=2e-4)
            if cached[name][i][0] == cached["torch"][i][0]:
                np.testing.assert_allclose(cached[name][i][1], expected, atol=2e-4)
