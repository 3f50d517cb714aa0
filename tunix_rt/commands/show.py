"""Show one run: its report, or its config, predictions or where its files are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from tunix_rt.commands import Parser
from tunix_rt.files import read_json, to_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.terminal import markdown, out

if TYPE_CHECKING:
    from tunix_rt.traces.prediction import Prediction


def main(arguments: Sequence[str]) -> int:
    """Print what is known about a run."""
    parser = Parser("show", __doc__, "run", "--json", "--root")
    parser.add_argument("--config", action="store_true", help="print the resolved config")
    parser.add_argument("--predictions", type=int, metavar="N", help="print the first N predictions")
    chosen = parser.parse(arguments)

    from tunix_rt.runs.table import RunRecord
    from tunix_rt.traces.prediction import read_predictions

    run: RunFolder = chosen.run
    first: list[Prediction] = []
    if chosen.predictions is not None:
        first = list(islice(read_predictions(run.predictions), max(chosen.predictions, 0)))
    if chosen.json:
        files = {"environment": run.environment, "data": run.data, "baseline_metrics": run.baseline_metrics}
        more = {name: read_json(file) for name, file in files.items() if file.exists()}
        if chosen.predictions is not None:
            more["predictions"] = [prediction.to_json() for prediction in first]
        out(to_json(RunRecord(run).to_json() | {"status": run.status(), "stages": run.stages()} | more))
    elif chosen.config:
        out(run.config.read_text("utf-8").rstrip())
    elif chosen.predictions is not None:
        for prediction in first:
            show(prediction)
    elif run.report.exists():
        markdown(run.report.read_text("utf-8").rstrip())
    else:
        status = run.status()
        stages = {name: record.get("state") for name, record in run.stages().items()}
        out(f"{run.name}: {status.get('state')} {status.get('reason') or ''}\nstages: {stages}\nfolder: {run.path}")
    return 0


def show(prediction: Prediction) -> None:
    """A prediction for a person; --json prints all of its fields."""
    sample = f", sample {prediction.sample}" if prediction.sample else ""
    out(f"{prediction.id}{sample}: {prediction.finish_reason}, {prediction.num_new_tokens} tokens")
    out(_indented("prompt", prediction.prompt))
    out(_indented("completion", prediction.completion))
    out(_indented("answer", "none in the format" if prediction.answer is None else prediction.answer))
    out(_indented("reference", prediction.reference))
    out(_indented("error", prediction.error) + "\n" if prediction.error else "")


def _indented(name: str, text: str) -> str:
    return f"  {name:10}  " + text.replace("\n", "\n" + 14 * " ")
