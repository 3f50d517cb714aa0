"""The torch backend's generation against `transformers.generate`, and against itself in other batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tunix_rt.backends.interface import Backend, State
from tunix_rt.backends.registry import create
from tunix_rt.backends.torch import continuous, generate
from tunix_rt.backends.torch.cache import Reading
from tunix_rt.backends.torch.sampling import Settings, choose, sample
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.results import GenerationConfig

POSITIONS = 96
Decoding = Callable[..., GenerationConfig]
Answer = tuple[list[int], list[float], str | None]


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    hardware = HardwareConfig(platform="cpu", threads=1)
    return create(BackendConfig(name="torch", precision="float32"), hardware, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def small_state(backend: Backend, small_llama: Path) -> State:
    return backend.load(small_llama, None)


@pytest.fixture(scope="module")
def prompts() -> list[Any]:
    """64 prompts of 1 to 13 ids, lengths in no order."""
    random = np.random.default_rng(4)
    return [random.integers(4, 53, random.integers(1, 14)).astype(np.int32) for _ in range(64)]


def answers(
    backend: Backend, state: State, prompts: Sequence[Any], decoding: GenerationConfig, seeds: Sequence[int]
) -> list[Answer]:
    """Pieces put together: ids, log-probabilities and finish reason of each prompt."""
    found: list[Answer] = [([], [], None) for _ in prompts]
    for piece in backend.generate(state, prompts, decoding, seeds):
        ids, logprobs, reason = found[piece.index]
        assert reason is None, "a piece after the last one"
        assert (piece.ids.dtype, piece.logprobs.dtype) == (np.int32, np.float32)
        assert not set(piece.ids.tolist()) & {1, 3}, "a stop id is no part of the completion"
        assert (piece.stop_id in (1, 3)) == (piece.finish_reason == "stop")
        found[piece.index] = (ids + piece.ids.tolist(), logprobs + piece.logprobs.tolist(), piece.finish_reason)
    assert all(reason is not None for _, _, reason in found)
    return found


def same(one: list[Answer], other: list[Answer]) -> None:
    """Tokens and reasons equal, log-probabilities within the rounding of other shapes."""
    assert [(ids, reason) for ids, _, reason in one] == [(ids, reason) for ids, _, reason in other]
    for (_, first, _), (_, second, _) in zip(one, other, strict=True):
        np.testing.assert_allclose(first, second, atol=2e-4)


def test_greedy_equals_transformers(backend: Backend, llama: Path, prompts: list[Any], decoding: Decoding) -> None:
    """Prompts of mixed length together against each alone: padding that is read would show."""
    import transformers

    model = transformers.LlamaForCausalLM.from_pretrained(llama)
    prompts = prompts[:16]
    found = answers(backend, backend.load(llama, None), prompts, decoding(), [0] * len(prompts))
    near_ties = 0
    for prompt, (ids, logprobs, reason) in zip(prompts, found, strict=True):
        tensor = torch.from_numpy(prompt).long()[None]
        out = model.generate(
            tensor,
            attention_mask=torch.ones_like(tensor),
            max_new_tokens=24,
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
        )
        expected = out.sequences[0, len(prompt) :].tolist()
        scores = torch.stack(out.scores)[:, 0].log_softmax(-1)
        top_two = scores.topk(2).values
        tie = next((i for i, (a, b) in enumerate(top_two.tolist()) if a - b < 1e-4), None)
        near_ties += tie is not None
        stopped = expected[-1] in (1, 3)
        expected = expected[:-1] if stopped else expected
        if tie is None:
            assert reason == ("stop" if stopped else "length")
        assert ids[:tie] == expected[:tie]
        chosen = [scores[i, token].item() for i, token in enumerate(expected[:tie])]
        np.testing.assert_allclose(logprobs[:tie], chosen, atol=2e-4)
    print(f"{near_ties} of {len(prompts)} completions cut at a gap below 1e-4")
    assert near_ties < 3, "too many near ties: the test would prove little"
    assert len({len(ids) for ids, _, _ in found}) > 1, "all of one length: no row finished before another"


@pytest.mark.parametrize("changes", [{"temperature": 0.0}, {"temperature": 1.0, "top_k": 30, "top_p": 0.95}])
@pytest.mark.slow
def test_a_row_does_not_depend_on_its_batch(
    backend: Backend,
    small_state: State,
    prompts: list[Any],
    decoding: Decoding,
    changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Alone, among 64, in another order, and with a prompt joining wherever a row has left: always the same."""
    seeds = [2**63 + 7 * i for i in range(64)]
    alone = answers(backend, small_state, prompts, decoding(batch_size=1, **changes), seeds)
    assert len({len(ids) for ids, _, _ in alone}) > 1, "all of one length: no row finished before another"
    same(alone, answers(backend, small_state, prompts, decoding(batch_size=64, **changes), seeds))
    backwards = answers(backend, small_state, prompts[::-1], decoding(batch_size=5, **changes), seeds[::-1])
    same(alone, backwards[::-1])
    monkeypatch.setattr(generate, "JOINING", 0.0)
    same(alone, answers(backend, small_state, prompts, decoding(batch_size=7, **changes), seeds))


def count_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of tokens of prompts that passes of the model read from now on."""
    read, hidden_states = [], continuous.hidden_states

    def counted(model: Any, tokens: Any, positions: Any, attend: Any) -> Any:
        if isinstance(attend, Reading):
            read.append(tokens.numel())
        return hidden_states(model, tokens, positions, attend)

    monkeypatch.setattr(continuous, "hidden_states", counted)
    return read


def test_equal_prompts_are_read_once(
    backend: Backend, small_state: State, prompts: list[Any], decoding: Decoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples of few prompts in any order: each text as alone; of a prompt that was read, only its last token is."""
    asked, seeds = [prompts[i] for i in (1, 0, 0, 3, 1, 0, 3, 0)], range(8)
    alone = answers(backend, small_state, asked, decoding(batch_size=1, temperature=1.0), seeds)
    read = count_read(monkeypatch)
    same(alone, answers(backend, small_state, asked, decoding(batch_size=8, temperature=1.0), seeds))
    assert read == [sum(len(prompts[i]) for i in (0, 1, 3)), 5]


def test_sampling_needs_the_seed_and_nothing_else(
    backend: Backend, small_state: State, prompts: list[Any], decoding: Decoding
) -> None:
    """One seed gives one text, whatever is drawn beside it; other seeds give others."""
    sampled = decoding(temperature=1.0)
    texts = [ids for ids, _, _ in answers(backend, small_state, [prompts[0]] * 40, sampled, [5, 6] * 20)]
    assert texts[0::2] == [texts[0]] * 20
    assert texts[1::2] == [texts[1]] * 20
    assert texts[0] != texts[1]
    others = [ids for ids, _, _ in answers(backend, small_state, [prompts[0]] * 20, sampled, range(20))]
    assert len({tuple(ids) for ids in others}) > 15


def test_one_pass_scores_what_the_cache_decoded(
    backend: Backend, llama: Path, prompts: list[Any], decoding: Decoding, batch_of: Any
) -> None:
    """Training path and generation path are the same model: at temperature 1, before any filter."""
    state = backend.load(llama, None)
    sampled = decoding(temperature=0.7, top_k=20, top_p=0.9)
    found = answers(backend, state, prompts[:12], sampled, range(12))
    rows = [np.concatenate([prompt, ids]) for prompt, (ids, _, _) in zip(prompts, found, strict=False)]
    batch = batch_of([rows[i : i + 2] for i in range(0, 12, 2)], 80)
    batch.weights[batch.segments > 0] = 1
    scored = backend.fetch(backend.logprobs(state, batch))["logprobs"]
    compared = 0
    for index, (_, logprobs, _) in enumerate(found):
        row = scored[index // 2][batch.segments[index // 2] == index % 2 + 1]
        np.testing.assert_allclose(row[len(row) - len(logprobs) :], logprobs, atol=2e-4)
        compared += len(logprobs)
    assert compared > 100, "next to nothing was decoded: the test would prove little"


def test_generation_ends_where_the_positions_end(backend: Backend, small_state: State, decoding: Decoding) -> None:
    """A full prompt gets nothing; others fill the positions exactly, unless they stop before."""
    random = np.random.default_rng(0)
    lengths = (POSITIONS + 1, POSITIONS, POSITIONS - 1, *[POSITIONS - 5] * 8)
    prompts = [random.integers(4, 53, n).astype(np.int32) for n in lengths]
    found = answers(backend, small_state, prompts, decoding(temperature=1.0), range(len(prompts)))
    assert found[:2] == [([], [], "length")] * 2
    filled = [
        (len(prompt), len(ids)) for prompt, (ids, _, reason) in zip(prompts, found, strict=True) if reason == "length"
    ]
    assert set(filled[2:]) == {(POSITIONS - 1, 1), (POSITIONS - 5, 5)}


def test_a_stop_id_ends_a_row_and_max_new_tokens_does(
    backend: Backend, small_state: State, prompts: list[Any], decoding: Decoding
) -> None:
    """Both reasons occur, and neither hides the other: at the last allowed token a stop is still a stop."""
    hot = answers(backend, small_state, prompts, decoding(temperature=3.0, max_new_tokens=20), range(64))
    stopped = [(ids, i) for i, (ids, _, reason) in enumerate(hot) if reason == "stop"]
    assert 5 < len(stopped) < 60
    assert {len(ids) for ids, _, reason in hot if reason == "length"} == {20}
    ids, index = max(stopped, key=lambda item: len(item[0]))
    just_enough = decoding(temperature=3.0, max_new_tokens=len(ids) + 1)
    assert answers(backend, small_state, [prompts[index]], just_enough, [index])[0][::2] == (ids, "stop")
    too_few = decoding(temperature=3.0, max_new_tokens=len(ids))
    assert answers(backend, small_state, [prompts[index]], too_few, [index])[0][::2] == (ids, "length")


def test_pieces_stream(backend: Backend, small_state: State, prompts: list[Any], decoding: Decoding) -> None:
    """A single answer arrives token by token; a batch in portions, not only at its end."""
    single = list(backend.generate(small_state, prompts[:1], decoding(temperature=1.0), [3]))
    assert max(len(piece.ids) for piece in single) == 1
    long = decoding(temperature=1.0, max_new_tokens=80)
    many = list(backend.generate(small_state, prompts, long, range(64)))
    assert max(len(piece.ids) for piece in many) == generate.PIECE_LENGTH
    first_end = next(i for i, piece in enumerate(many) if piece.finish_reason is not None)
    assert first_end < len(many) - 64


def reference_shares(logits: Any, config: GenerationConfig) -> Any:
    """Filtered probabilities in float64, by the warpers of transformers."""
    from transformers.generation import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    warpers = LogitsProcessorList([TemperatureLogitsWarper(config.temperature)])
    if config.top_k is not None:
        warpers.append(TopKLogitsWarper(config.top_k))
    if config.top_p is not None:
        warpers.append(TopPLogitsWarper(config.top_p))
    return warpers(torch.zeros(len(logits), 0).long(), logits.double()).softmax(-1).numpy()


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 1.0},
        {"temperature": 0.6, "top_k": 5},
        {"temperature": 1.3, "top_p": 0.8},
        {"temperature": 1.0, "top_k": 9, "top_p": 0.5},
        {"temperature": 1.0, "top_k": 1000, "top_p": 1.0},
    ],
    ids=str,
)
def test_sampling_inverts_the_distribution_that_transformers_filters(
    decoding: Decoding, changes: dict[str, Any]
) -> None:
    """The filters, their order, renormalisation, and the order of the vocabulary."""
    random = np.random.default_rng(5)
    logits = torch.from_numpy((2 * random.standard_normal((300, 37))).astype(np.float32))
    uniform = random.random(300).astype(np.float32)
    tokens = sample(logits, torch.from_numpy(uniform), Settings.of(decoding(**changes))).numpy()
    edges = reference_shares(logits, decoding(**changes)).cumsum(-1)
    clear = np.abs(edges - uniform[:, None]).min(-1) > 1e-5
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(tokens[clear], (edges > uniform[:, None]).argmax(-1)[clear])


def test_a_draw_never_leaves_the_filtered_set(decoding: Decoding) -> None:
    """The largest uniform number times the total may round to the total, beyond which nothing lies."""
    logits = torch.tensor([[0.0, 3.0, 1.0, -2.0]])
    filtered = (decoding(temperature=1.0, top_k=2), decoding(temperature=1.0, top_p=0.8))
    for config in map(Settings.of, filtered):
        assert sample(logits, torch.tensor([1 - 2.0**-24]), config).item() in (1, 2)
        assert sample(logits, torch.tensor([0.0]), config).item() == 1
    flat = torch.zeros(64, 1001)
    drawn = sample(flat, torch.full((64,), 1 - 2.0**-24), Settings.of(decoding(temperature=1.0)))
    assert (drawn < 1001).all()
    hopeless = sample(torch.full((1, 9), torch.nan), torch.tensor([0.5]), Settings.of(decoding(temperature=1.0)))
    assert hopeless.item() < 9


@pytest.mark.parametrize("temperature", [1e-300, 1e-44, 1e-37, 1e-3])
def test_the_lowest_temperatures_are_greedy(decoding: Decoding, temperature: float) -> None:
    """Logits divided by them are above every number of float32."""
    logits, uniform = torch.tensor([[300.0, -1e4, 900.0, 2.0]]), torch.tensor([0.999])
    for further in ({}, {"top_k": 3}, {"top_p": 0.9}):
        settings = Settings.of(decoding(temperature=temperature, **further))
        assert choose(logits, uniform, [settings]).item() == 2


def test_bfloat16_decodes_what_it_scores(
    tame_llama: Path, prompts: list[Any], decoding: Decoding, tmp_path: Path, batch_of: Any
) -> None:
    """Both paths cast the same things: log-probabilities of the cached path within 2e-2 of those of one pass."""
    hardware = HardwareConfig(platform="cpu", threads=1)
    half = create(BackendConfig(name="torch", precision="bfloat16"), hardware, tmp_path)
    state = half.load(tame_llama, None)
    found = answers(half, state, prompts[:8], decoding(temperature=1.0), range(8))
    rows = [[np.concatenate([prompt, ids])] for prompt, (ids, _, _) in zip(prompts, found, strict=False)]
    batch = batch_of(rows, 48)
    batch.weights[batch.segments > 0] = 1
    scored = half.fetch(half.logprobs(state, batch))["logprobs"]
    for row, segments, (_, logprobs, _) in zip(scored, batch.segments, found, strict=True):
        real = row[segments > 0]
        np.testing.assert_allclose(real[len(real) - len(logprobs) :], logprobs, atol=2e-2)
    assert sum(len(logprobs) for _, logprobs, _ in found) > 40
