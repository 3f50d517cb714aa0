"""A scorer of an installed package: declared, explained, judging and rewarding like ours."""

from __future__ import annotations

import json

import pytest

from tests.conftest import TOY
from tests.evaluation import toy_package
from tests.pipeline.conftest import Person
from tunix_rt.traces.rollout import read_rollouts, rollouts_file

SMALL = [word for word in TOY if not word.startswith(("hardware", "tracking"))]
WORDS = (
    *("backend=torch", *TOY, "name=near", "model=run", "model.source.experiment=quickstart", "tokenizer=pretrained"),
    f"model.source.overrides=[{','.join(repr(word) for word in SMALL)}]",
    *("objective=rloo", "objective.rollout.prompts_per_step=2", "objective.rollout.samples_per_prompt=3"),
    *("training.max_steps=2", "training.row_length=null", "optimizer.learning_rate=1e-4"),
    "evaluation.scorers=[{kind: number}, {kind: near, within: 50}]",
    "objective.reward.weights={near.nearness: 1.0, near: 0.5, format: 0.1, answer: 0}",
)


@pytest.mark.acceptance
def test_a_scorer_of_a_package_judges_and_rewards(person: Person) -> None:
    place = person.folder / "installed"
    place.mkdir()
    toy_package.install(place, near="toy_scorer:NearScorer")
    env = {"PYTHONPATH": str(place)}
    assert "Where nearness becomes 0." in person.starts("options", "evaluation.scorers", env=env).out
    wrong = person.starts(*WORDS, "objective.reward.weights={far: 1}", env=env)
    assert wrong.code == 2 and "no such component; one of answer, format, steps, length, or a scorer" in wrong.err
    done = person.starts(*WORDS, env=env)
    assert done.code == 0, done.err
    run = person.run_folder("near")
    assert person.reads("metrics.json", "near")["scores"]["near"].keys() >= {"value", "n"}
    for step in (1, 2):
        rollouts = read_rollouts(rollouts_file(run / "rollouts", step))
        assert len(rollouts) == 6
        assert all(one.rewards.keys() == {"near.nearness", "near", "format", "answer"} for one in rollouts)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any("rollout/reward_near.nearness" in line for line in lines)
    without = person.starts(*WORDS, "name=other")
    assert without.code == 2 and "got 'near', allowed: 'choice'" in without.err
