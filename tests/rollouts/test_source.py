"""Updates from rollouts: the weights by hand, the stop token learned, everything on disk before it is learned from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.rollouts.conftest import Known, Make
from tunix_rt.batches.batch import Batch
from tunix_rt.errors import DataError, Interrupted
from tunix_rt.models.tokenizer import Tokenizer
from tunix_rt.traces.rollout import read_rollouts, rollouts_file, write_rollouts
from tunix_rt.training.source import Update

pytestmark = pytest.mark.framework


def same(one: Update, other: Update) -> bool:
    arrays = ("tokens", "targets", "positions", "segments", "weights")
    equal = all(np.array_equal(getattr(one.batch, name), getattr(other.batch, name)) for name in arrays)
    return equal and one.metrics == other.metrics and one.batch.divisor == other.batch.divisor


def sequences(batch: Batch) -> dict[tuple[int, ...], list[float]]:
    """Every sequence of a batch, prompt included, with the weight of each of its targets."""
    found = {}
    for tokens, targets, segments, weights in zip(
        *(array.reshape(-1, array.shape[-1]) for array in (batch.tokens, batch.targets, batch.segments, batch.weights)),
        strict=True,
    ):
        for segment in range(1, int(segments.max(initial=0)) + 1):
            inside = segments == segment
            found[int(tokens[inside][0]), *targets[inside].tolist()] = weights[inside].tolist()
    return found


def test_the_weights_are_advantages_at_the_sampled_tokens_and_at_nothing_else(trial: Make) -> None:
    """Dr. GRPO: (reward - mean of the group) / (sequences * max_new_tokens), the stop token included."""
    made = trial()
    state, tokenizer = made.start(), Tokenizer.load(made.prepared.model_folder)
    update = made.source.batch(1, state)
    rollouts = read_rollouts(rollouts_file(made.folder, 1))
    assert [rollout.sample for rollout in rollouts] == [0, 1, 2, 3] * 3
    means = {r.id: np.mean([o.reward for o in rollouts if o.id == r.id]) for r in rollouts}
    trained = sequences(update.batch)
    stopped = 0
    for rollout in rollouts:
        prompt = tuple(tokenizer.ids(rollout.prompt))
        expected = (rollout.reward - means[rollout.id]) / (12 * 8)
        weights = trained.pop((*prompt, *rollout.ids), None)
        assert rollout.advantage == pytest.approx(rollout.reward - means[rollout.id], abs=1e-12)
        if expected:
            assert weights == pytest.approx([0.0] * (len(prompt) - 1) + [expected] * len(rollout.ids))
        ended = rollout.ids[-1] == tokenizer.end_id
        assert ended == (rollout.finish_reason == "stop") and (ended or len(rollout.ids) == 8)
        stopped += ended
    assert not trained and 0 < stopped < 12
    assert update.batch.divisor == 1.0 and update.metrics["rollout/reward"] == np.mean([r.reward for r in rollouts])
    assert 0 < update.metrics["rollout/mismatch"] < 1e-4


def test_what_has_nothing_to_teach_is_not_computed(trial: Make) -> None:
    made = trial(judge=Known(dead=set()))
    dead = set(made.source.ids(1)[1:])
    made = trial(judge=Known(dead=dead))
    update = made.source.batch(1, made.start())
    assert len(sequences(update.batch)) == 4 and update.metrics["rollout/dead_groups"] == pytest.approx(2 / 3)
    assert update.batch.tokens.size < trial().facts["row_length"] * 12


def test_a_text_depends_on_seed_step_prompt_and_sample_alone(trial: Make, tmp_path: Path) -> None:
    def texts(*words: str) -> list[tuple[str, int, str]]:
        made = trial(*words)
        rollouts_file(made.folder, 2).unlink(missing_ok=True)
        made.source.batch(2, made.start())
        return [(r.id, r.sample, r.completion) for r in read_rollouts(rollouts_file(made.folder, 2))]

    found = texts()
    assert texts("objective.rollout.batch_size=12") == texts("hardware.local_batch_size=1") == found
    assert len({text for _, _, text in found}) > 9, "samples of a prompt differ"
    assert {name for name, _, _ in texts("training.seed=1")} != {name for name, _, _ in found}


@pytest.mark.parametrize("updates", [1, 2])
def test_a_rollout_on_disk_is_not_sampled_again(updates: int, trial: Make) -> None:
    """The process was killed before the update: another one makes the same of the file, to the last bit."""
    words = f"objective.rollout.updates={updates}"
    first = trial(words)
    state = first.start()
    expected = first.source.batch(1, state)
    assert first.engine.generated == [12] and first.judge.asked
    second = trial(words)
    assert same(second.source.batch(1, second.start()), expected)
    assert second.engine.generated == [] and second.judge.asked == []


def test_later_updates_learn_from_the_same_rollout(trial: Make) -> None:
    """The second update's ratio is that of the changed model to the one that sampled; so it is after a crash too."""
    words = ("objective.rollout.updates=2", "objective.clip_high=0.01", "objective.clip_low=0.01")
    made = trial(*words)
    state = made.start()
    update = made.source.batch(1, state)
    state, _ = made.engine.train_step(state, update.batch, 0.1)
    second = made.source.batch(2, state)
    assert made.engine.generated == [12] and "rollout/reward" not in second.metrics
    assert update.metrics["rollout/ratio_max"] == pytest.approx(1, abs=1e-4)
    assert second.metrics["rollout/ratio_max"] > 1.01 and second.metrics["rollout/clip_fraction"] > 0
    again = trial(*words)
    assert same(again.source.batch(2, state), second) and again.engine.generated == []
    state, _ = made.engine.train_step(state, second.batch, 0.1)
    made.source.batch(3, state)
    assert made.engine.generated == [12, 12] and not set(made.source.ids(3)) & set(made.source.ids(2))
    assert made.source.ids(1) == made.source.ids(2)


def test_a_damaged_rollout_is_sampled_again_if_the_model_is_still_there(
    trial: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "objective.rollout.updates=2"
    made = trial(words)
    state, file = made.start(), rollouts_file(made.folder, 1)
    expected = made.source.batch(1, state)
    whole = file.read_bytes()
    edited = whole.replace(b'"reward": 0.0', b'"reward": 0.5', 1)
    for damage in (whole[: len(whole) // 2], whole.split(b"\n", 1)[1], edited):
        assert damage != whole
        file.write_bytes(damage)
        again = trial(words)
        assert same(again.source.batch(1, state), expected) and file.read_bytes() == whole
        assert "they are sampled again" in capsys.readouterr().err
        file.write_bytes(damage)
        with pytest.raises(DataError, match=r"step_00000001\.jsonl.*; the model that sampled them is gone"):
            trial(words).source.batch(2, state)
    file.unlink()
    with pytest.raises(DataError, match="no such file; the model that sampled them is gone"):
        trial(words).source.batch(2, state)


def test_the_seal_of_a_rollout_is_written_last_and_has_to_be_there(trial: Make) -> None:
    """A crash between the two leaves a rollout from which nothing was learned yet."""
    words = "objective.rollout.updates=2"
    made = trial(words)
    state, file = made.start(), rollouts_file(made.folder, 1)
    expected = made.source.batch(1, state)
    (seal,) = made.folder.glob("*.sha256")
    assert seal.read_text() == f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
    seal.unlink()
    with pytest.raises(DataError, match=r"step_00000001\.sha256, its sha256, is missing\); the model that sampled"):
        trial(words).source.batch(2, state)
    again = trial(words)
    assert same(again.source.batch(1, state), expected) and seal.exists() and again.engine.generated == [12]


def test_a_rollout_whose_further_prompts_are_missing_is_not_whole(trial: Make) -> None:
    """Prevents: a file cut where a round of prompts ends is learned from, under the same identity."""
    words = ("objective.rollout.resample=2", "objective.rollout.updates=2")
    order = [question.trace.id for question in trial(*words).source._window(1)]
    dead = Known(dead=set(order) - {order[1], order[4], order[5]})
    made = trial(*words, judge=dead)
    state, file = made.start(), rollouts_file(made.folder, 1)
    expected = made.source.batch(1, state)
    rollouts = read_rollouts(file)
    for kept in (12, 20, 23):
        write_rollouts(file, rollouts[:kept])
        with pytest.raises(DataError, match="not the rollouts of this step; the model that sampled them is gone"):
            trial(*words, judge=dead).source.batch(2, state)
        assert same(trial(*words, judge=dead).source.batch(1, state), expected) and read_rollouts(file) == rollouts


def test_an_interrupt_while_it_samples_leaves_nothing(trial: Make, tmp_path: Path) -> None:
    made = trial()
    made.engine.fails = lambda piece: (tmp_path / "stop").touch()
    with pytest.raises(Interrupted, match="stopped after step 1, which is saved"):
        made.source.batch(2, made.start())
    assert not list(made.folder.glob("*"))


def test_prompts_without_a_signal_are_replaced_as_often_as_declared(trial: Make) -> None:
    words = ("objective.rollout.resample=2", "objective.rollout.prompts_per_step=3")
    order = [question.trace.id for question in trial(*words).source._window(1)]
    alive = {order[1], order[4], order[5]}
    made = trial(*words, judge=Known(dead=set(order) - alive))
    update = made.source.batch(1, made.start())
    rollouts = read_rollouts(rollouts_file(made.folder, 1))
    assert made.engine.generated == [12, 8, 4], "two were dead, then one"
    assert list(dict.fromkeys(r.id for r in rollouts)) == order[:6] == made.source.ids(1)
    assert {r.id for r in rollouts if r.advantage} == alive and len(sequences(update.batch)) == 12
    assert update.metrics["rollout/resampled"] == 3 and update.metrics["rollout/dead_groups"] == pytest.approx(2 / 3)
    first = [r.reward for r in rollouts if r.id in order[:3]]
    assert update.metrics["rollout/reward"] == pytest.approx(np.mean(first)), "of all that were asked first"
    again = trial(*words, judge=made.judge)
    assert same(again.source.batch(1, made.start()), update) and again.engine.generated == []


def test_if_too_few_teach_something_the_others_count_in_the_divisor(trial: Make) -> None:
    order = [question.trace.id for question in trial().source._window(1)]
    made = trial(judge=Known(dead=set(order[:2])))
    weights = {abs(w) for found in sequences(made.source.batch(1, made.start()).batch).values() for w in found if w}
    advantages = {abs(r.advantage) for r in read_rollouts(rollouts_file(made.folder, 1)) if r.advantage}
    assert sorted(weights) == pytest.approx(sorted(a / (12 * 8) for a in advantages))
