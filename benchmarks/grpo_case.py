"""What a lap of GRPO is: which weights, how many steps, prompts and samples. The same for ours and for theirs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.workload import Workload
from tunix_rt.objectives.rollouts import RolloutObjective
from tunix_rt.runs.folder import RunFolder
from tunix_rt.terminal import say

MADE_BEFORE = ("model=", "model.", "tokenizer=", "tokenizer.")
"""What is declared of these belongs to the training of the weights, which are there afterwards."""


@dataclass(frozen=True, slots=True)
class GrpoCase:
    """The work of one lap, the same for all contestants."""

    workload: Workload
    """Declares the steps, prompts, samples and lengths too."""
    model: Path
    """Folder of the trained weights."""

    @classmethod
    def of(cls, before: Workload, *declared: str) -> GrpoCase:
        """Train the weights as `before` declares, if that is not done yet."""
        from tunix_rt.experiment import run

        before.prepared()
        say("grpo: training the weights, unless that was done before")
        model = RunFolder(run(before.config).folder).model.resolve()
        words = ("model=from_path", f"model.source.path={model}", "tokenizer=pretrained")
        kept = (word for word in before.overrides if not word.startswith(MADE_BEFORE))
        return cls(Workload((*kept, *words, *declared)), model)

    @property
    def objective(self) -> RolloutObjective:
        """What is declared of the rollouts."""
        objective = self.workload.config.objective
        assert isinstance(objective, RolloutObjective)
        return objective

    @property
    def num_steps(self) -> int:
        """Steps of a lap."""
        return self.workload.config.training.max_steps or 0

    @property
    def num_samples(self) -> int:
        """Samples of a lap."""
        rollout = self.objective.rollout
        return self.num_steps * rollout.prompts_per_step * rollout.samples_per_prompt
