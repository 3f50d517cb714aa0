"""DVC's stage `prepare`: a declared dataset and model in, `data/dvc/` out."""

import sys

from tunix_rt.__main__ import guarded
from tunix_rt.pipeline import stage, wants_traceback
from tunix_rt.stages.prepare import prepare


def main() -> int:
    with stage("prepare") as here:
        config, folder = here.config, here.prepared.folder
        prepare(
            config.training.seed,
            config.model.source,
            config.tokenizer,
            config.dataset,
            config.format,
            folder=folder,
            models=folder / "models",
            store=here.store,
        )
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, wants_traceback()))
