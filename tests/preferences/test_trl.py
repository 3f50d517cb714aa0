"""The same pairs and weights through TRL's DPOTrainer: equal losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.preferences.conftest import Toy
from tunix_rt.backends.interface import Backend

STEPS, RATE = 10, 1e-3
MEASURED = {
    "train/loss": (0.693147, 0.637247, 0.581507, 0.54786, 0.511697, 0.480527, 0.445049, 0.427216, 0.398228, 0.387945),
    "grad_norm": (1.251921, 1.045527, 0.903855, 0.833393, 0.737872, 0.707216, 0.673362, 0.587299, 0.568315, 0.626588),
    "preference/margin": (0, 0.115197, 0.238241, 0.315958, 0.403467, 0.484188, 0.581898, 0.63398, 0.716331, 0.750167),
}
"""What TRL 1.16.0 measured in the test below."""


def test_ten_steps_are_those_that_trl_once_measured(toy: Toy, torch: Backend) -> None:
    measured = [values for _, values in toy.steps(torch, STEPS, RATE)][:STEPS]
    for key, theirs in MEASURED.items():
        assert [values[key] for values in measured] == pytest.approx(theirs, rel=1e-4, abs=1e-4), key


@pytest.mark.acceptance
@pytest.mark.filterwarnings("ignore")
def test_ten_steps_are_those_of_trl(toy: Toy, torch: Backend, tmp_path: Path) -> None:
    """Constant rate, clipping at 1 and AdamW as declared here; TRL pads, where we pack."""
    import transformers
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from trl import DPOConfig, DPOTrainer

    measured = [values for _, values in toy.steps(torch, STEPS, RATE)][:STEPS]
    order, training, optimizer = toy.source(torch).order, toy.config.training, toy.config.optimizer
    traces = {trace.id: trace for trace in toy.data.traces("train")}
    found = [traces[name] for step in range(STEPS) for name in order.ids_at(step)]
    rows = [
        {"prompt": trace.prompt, "chosen": said.content, "rejected": trace.loser.completion.content}
        for trace in found
        if (said := trace.completion) is not None and trace.loser.completion is not None
    ]

    class InOrder(DPOTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    settings = DPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=training.global_batch_size,
        max_steps=STEPS,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        adam_beta1=optimizer.beta1,
        adam_beta2=optimizer.beta2,
        adam_epsilon=optimizer.eps,
        weight_decay=0.0,
        max_grad_norm=training.clip_norm,
        beta=0.1,
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
    )
    model, tokenizer = (
        auto.from_pretrained(toy.data.model_folder)
        for auto in (transformers.AutoModelForCausalLM, transformers.AutoTokenizer)
    )
    trainer = InOrder(model, args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    trainer.train()
    for key, name in zip(("loss", "grad_norm", "rewards/margins"), MEASURED, strict=True):
        theirs = [line[key] for line in trainer.state.log_history if "loss" in line]
        assert theirs == pytest.approx([values[name] for values in measured], rel=1e-4, abs=1e-4), key
