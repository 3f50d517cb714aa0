"""DVC's stage `predict`: the trained model and prompts in, `runs/dvc/predict/` out."""

import sys

from tunix_rt.__main__ import guarded
from tunix_rt.pipeline import stage, wants_traceback
from tunix_rt.stages.predict import predict


def main() -> int:
    with stage("predict") as here:
        config = here.config
        predict(
            config.format,
            config.backend,
            config.model.adapter,
            config.generation,
            prepared=here.prepared,
            run=here.run,
            hardware=config.hardware,
            cache=here.cache,
            interrupt=here.interrupt,
        )
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, wants_traceback()))
