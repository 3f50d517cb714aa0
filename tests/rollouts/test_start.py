"""What has to hold before the first rollout is one line; the reference is the model that training began with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from tests.rollouts.conftest import Make, Trial
from tunix_rt.config.choices import SplitName
from tunix_rt.errors import DataError
from tunix_rt.rollouts.watch import PATIENCE
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.traces.trace import Trace

pytestmark = pytest.mark.framework


@dataclass(frozen=True)
class Changed(PreparedData):
    """Prepared data with other traces to train on."""

    change: Callable[[Trace], Trace]

    def traces(self, split: SplitName) -> list[Trace]:
        return [self.change(trace) for trace in PreparedData.traces(self, split)]


def test_a_prompt_without_an_answer_is_named(trial: Make, prepared: PreparedData) -> None:
    unanswered = Changed(prepared.folder, lambda trace: replace(trace, final_answer=" "))
    expected = (
        r"^18 of 18 training prompts have no answer to judge by, which the reward `answer` needs; the first is \d"
    )
    with pytest.raises(DataError, match=expected):
        trial(data=unanswered)
    trial("objective.reward.weights={format: 1, answer: 0}", data=unanswered)


def test_a_prompt_that_cannot_be_asked_is_named(trial: Make, prepared: PreparedData) -> None:
    foreign = Changed(prepared.folder, lambda trace: replace(trace, prompt="ä="))
    with pytest.raises(DataError, match=r"^prompt \d+\*\d+ cannot be asked: not in the vocabulary: 'ä'"):
        trial(data=foreign)


def test_prompts_have_to_suffice_and_rows_do(trial: Make) -> None:
    with pytest.raises(DataError, match=r"prompts_per_step: 65, but the training split has 64 prompts"):
        trial("objective.rollout.prompts_per_step=65")
    assert trial("training.row_length=8", "dataset.max_length=null").facts["row_length"] == 16, "an answer has to fit"
    assert trial("training.row_length=80").facts["row_length"] == 80


def test_prompts_that_leave_little_room_are_counted(
    trial: Make, prepared: PreparedData, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents: answers that are cut after few tokens, and nothing says why."""
    trial()
    assert "less room" not in capsys.readouterr().err
    first, second, *_ = prepared.traces("train")
    longer = {first.id: "1" * 125, second.id: "1" * 121}
    crowded = Changed(prepared.folder, lambda trace: replace(trace, prompt=longer.get(trace.id, trace.prompt)))
    trial("objective.rollout.prompts_per_step=64", data=crowded)
    said = " ".join(capsys.readouterr().err.split())
    assert "2 of 64 training prompts leave less room than objective.rollout.max_new_tokens=8 in the model's 128" in said
    assert f" positions, {first.id} only 3: their answers are cut off earlier" in said


def test_an_epoch_asks_each_prompt_once(trial: Make) -> None:
    facts = trial("training.max_steps=null", "training.num_epochs=1.5", "objective.rollout.updates=2").facts
    assert facts == {"row_length": 16, "num_steps": 63, "num_epochs": 1.5}, (
        "21 rollouts of 3 prompts, 2 updates on each"
    )


def reference_is_the_start(made: Trial) -> None:
    """The estimate k1 at every sampled token, from a model that was loaded beside the one that is trained."""
    state = made.start()
    assert made.source.batch(1, state).metrics["rollout/kl"] == 0.0
    state, _ = made.engine.train_step(state, made.source.batch(1, state).batch, 0.1)
    update = made.source.batch(2, state)
    batch = replace(update.batch, weights=(update.batch.weights != 0).astype(np.float32))
    now, before = (made.engine.fetch(made.engine.backend.logprobs(s, batch))["logprobs"] for s in (state, made.start()))
    inside = batch.weights > 0
    assert update.metrics["rollout/kl"] == pytest.approx(float((now - before)[inside].mean()), rel=1e-3)
    assert abs(update.metrics["rollout/kl"]) > 1e-3


KL = ("objective.kl_coefficient=0.1", "objective.kl_estimator=k1")


def test_the_reference_is_the_model_that_training_began_with(trial: Make) -> None:
    made = trial(*KL)
    assert made.source.reference is not None and made.source.reference.state is not None
    reference_is_the_start(made)


def test_with_lora_it_is_the_trained_model_without_its_adapter(trial: Make) -> None:
    """No second model is loaded."""
    made = trial(*KL, "model/adapter=lora", "model.adapter.rank=2")
    assert made.source.reference is not None and made.source.reference.state is None
    reference_is_the_start(made)


def test_it_is_said_once_that_no_answer_teaches_anything(trial: Make, capsys: pytest.CaptureFixture[str]) -> None:
    made = trial("training.max_steps=9")
    made.judge.dead.update(trace.id for trace in made.prepared.traces("train"))
    state = made.start()
    for step in range(1, PATIENCE + 3):
        update = made.source.batch(step, state)
        assert not update.batch.weights.any() and update.metrics["rollout/dead_groups"] == 1.0
        said = capsys.readouterr().err
        assert ("every answer got one reward (0), so nothing is learned" in said) == (step == PATIENCE), said
