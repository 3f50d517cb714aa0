"""DVC's stage `train`: prepared data and initial weights in, `runs/dvc/train/` (logs, model) out."""

import sys

from tunix_rt.__main__ import guarded
from tunix_rt.pipeline import stage, wants_traceback
from tunix_rt.stages.train import train


def main() -> int:
    with stage("train") as here:
        config = here.config
        facts = train(
            config.format,
            config.backend,
            config.model.adapter,
            config.optimizer,
            config.schedule,
            config.training,
            config.run.stop_step,
            prepared=here.prepared,
            run=here.run,
            identity=here.identity,
            hardware=config.hardware,
            checkpoint=config.checkpoint,
            cache=here.cache,
            interrupt=here.interrupt,
        )
        here.facts.update(facts)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, wants_traceback()))
