"""Show one run: its report, its answers (the wrong ones, one prompt's), its config, or where its files are.

`show RUN --wrong` prints wrong answers with each step marked right or wrong, `--id ID` every sample of one prompt,
`--slice KEY=VALUE` answers of a slice; `--tokens` colours tokens by their probability (alone: of the first answers);
`--rollouts STEP` what the model wrote at a step from which it learned, with rewards, the best first.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunix_rt.commands import Parser
from tunix_rt.errors import InputError
from tunix_rt.files import JsonObject, read_json, read_record, to_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.styled import lines, markdown
from tunix_rt.terminal import out, table

if TYPE_CHECKING:
    from tunix_rt.report.answers import Answer

SHOWN = 5
"""How many answers are shown unless a number is given."""
LAST = 0
"""In the place of a step: the last one."""


def main(arguments: Sequence[str]) -> int:
    """Print what is known about a run."""
    parser = Parser("show", __doc__, "run", "--json", "--root")
    parser.add_argument("--config", action="store_true", help="print the resolved config")
    parser.add_argument("--predictions", type=_number, metavar="N", help="print the first N answers")
    parser.add_argument("--wrong", type=_number, nargs="?", const=SHOWN, metavar="N", help="the first N wrong ones (5)")
    parser.add_argument("--id", metavar="ID", help="every sample of the prompt with this id, or one that begins so")
    parser.add_argument("--slice", metavar="KEY=VALUE", help="only answers of this slice (evaluation.slices)")
    parser.add_argument(
        "--tokens", action="store_true", help="colour the tokens by their probability, list the least sure"
    )
    parser.add_argument(
        "--rollouts", type=_step, nargs="?", const=LAST, metavar="STEP", help="answers that were learned from (last)"
    )
    chosen = parser.parse(arguments)
    run: RunFolder = chosen.run
    asked = chosen.tokens or any(
        option is not None for option in (chosen.wrong, chosen.predictions, chosen.id, chosen.slice)
    )
    if chosen.rollouts is not None:
        _rollouts(run, chosen)
    elif chosen.json:
        out(
            to_json(
                _record(run) | ({"predictions": [one.to_json() for one in _chosen(run, chosen)[0]]} if asked else {})
            )
        )
    elif chosen.config:
        out(run.config.read_text("utf-8").rstrip())
    elif asked:
        _answers(run, chosen)
    elif run.report.exists():
        _report(run)
    else:
        status = run.status()
        stages = {name: record.get("state") for name, record in run.stages().items()}
        out(f"{run.name}: {status.get('state')} {status.get('reason') or ''}\nstages: {stages}\nfolder: {run.path}")
    return 0


def _number(text: str) -> int:
    if not text.isdigit():
        raise ArgumentTypeError(f"{text!r} is not a number of answers (the run stands before the option)")
    return int(text)


def _step(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise ArgumentTypeError(f"{text!r} is not a step (they count from 1; the run stands before the option)")
    return int(text)


def _rollouts(run: RunFolder, chosen: Any) -> None:
    """The prompts of a step whose answers differ most in reward, or the one that was asked for."""
    from tunix_rt.report.rollout_text import headline
    from tunix_rt.report.rollout_text import lines as lines_of
    from tunix_rt.report.rollouts import groups_at
    from tunix_rt.traces.rollout import rollout_steps

    step = chosen.rollouts or max(rollout_steps(run.rollouts), default=1)
    groups = groups_at(run, step)
    if chosen.json:
        out(to_json([rollout.to_json() for group in groups for rollout in group.rollouts]))
        return
    found = [group for group in groups if chosen.id is None or group.best.id.startswith(chosen.id)]
    if not found:
        raise InputError(
            f"step {step}: no prompt has an id that begins with {chosen.id!r}, such as {groups[0].best.id!r}"
        )
    shown = found if chosen.id is not None else found[: chosen.predictions or SHOWN]
    out(f"{run.name}, step {step:,}: {len(shown):,} of {len(groups):,} prompts, those whose rewards differ most first")
    for group in shown:
        out(f"\n{headline(group)}")
        lines(lines_of(group))


def _record(run: RunFolder) -> JsonObject:
    """All that --json prints of a run."""
    from tunix_rt.runs.table import RunRecord

    files = {"environment": run.environment, "data": run.data, "baseline_metrics": run.baseline_metrics}
    more = {name: read_json(file) for name, file in files.items() if file.exists()}
    return RunRecord(run).to_json() | {"status": run.status(), "stages": run.stages()} | more


def _chosen(run: RunFolder, chosen: Any) -> tuple[list[Answer], str]:
    """The answers that were asked for, and a line that says which of how many they are."""
    from tunix_rt.report.answers import answers, of_prompt, of_slice

    found = list(answers(run))
    where = ""
    if chosen.slice is not None:
        key, equals, value = chosen.slice.partition("=")
        if not equals:
            raise InputError(f"--slice {chosen.slice}: expected KEY=VALUE")
        found, where = of_slice(found, key, value), f" with {chosen.slice}"
    if chosen.id == "":
        raise InputError("--id: expected the id of a prompt, or how it begins")
    if chosen.id is not None:
        found = of_prompt(found, chosen.id)
        where += f" to the prompt {found[0].prediction.id}"
    all_of_them = len(found)
    if chosen.wrong is not None:
        if not run.items.exists():
            raise InputError(f"{run.name}: not evaluated yet, so nothing is known to be wrong")
        found = [answer for answer in found if answer.right is False]
    said = f"{len(found):,} of {all_of_them:,} answers{where}{' are wrong' if chosen.wrong is not None else ''}"
    most = next((n for n in (chosen.wrong, chosen.predictions) if n is not None), len(found) if chosen.id else SHOWN)
    return found[:most], said + (f"; the first {most}:" if most < len(found) else "")


def _answers(run: RunFolder, chosen: Any) -> None:
    from tunix_rt.report.answer_text import headline
    from tunix_rt.report.answer_text import lines as lines_of

    found, said = _chosen(run, chosen)
    out(f"{run.name}: {said}")
    before = None
    for answer in found:
        out(f"\n{headline(answer)}")
        lines(lines_of(answer, chosen.tokens, answer.prediction.id != before))
        before = answer.prediction.id


def _report(run: RunFolder) -> None:
    """The report without its pictures, and commands that no line break cuts."""
    from tunix_rt.config.execution import TrackingConfig
    from tunix_rt.config.outdated import tracking_of_today
    from tunix_rt.report.blocks import without_pictures
    from tunix_rt.report.markdown import NEXT
    from tunix_rt.report.summary import next_steps
    from tunix_rt.tracking.store import ui_command

    text, _, _ = run.report.read_text("utf-8").partition(f"## {NEXT}\n")
    markdown(without_pictures(text).rstrip() + "\n")
    tracking = run.read_config().get("tracking")
    command = None if tracking is None else ui_command(TrackingConfig(**tracking_of_today(tracking)), run.path)
    table("", (), next_steps(run, read_record(run.metrics), command))
