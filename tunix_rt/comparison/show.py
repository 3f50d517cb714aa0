"""A comparison for a person, in 80 columns, and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from tunix_rt import hints
from tunix_rt.comparison.bootstrap import DRAWS, SEED, bootstrap
from tunix_rt.comparison.compare import Comparison
from tunix_rt.comparison.flips import Flip, Told, told
from tunix_rt.comparison.statistics import LEVEL, Estimate, discordant
from tunix_rt.files import JsonObject
from tunix_rt.terminal import cut, out, table

WIDTH = 80
EFFECTS = (0.01, 0.02, 0.05)
"""True differences of a rate for which it is said how many prompts would show them."""
LONGEST = 300
"""Characters of a completion that are shown."""


def show(found: Comparison, num_flips: int) -> None:
    """Print a comparison: the sentence, the facts, slices, and `num_flips` flips of each kind with their texts."""
    out(f"{found.sentence()}\n")
    lines = dict(facts(found))
    width = max(map(len, lines))
    for name, text in lines.items():
        first, *rest = textwrap.wrap(text, WIDTH - width - 3) or [""]
        out(f" {name:{width}}  {first}")
        for line in rest:
            out(" " * (width + 3) + line)
    out()
    _show_slices(found)
    if num_flips > 0:
        _show_flips(found, num_flips)
    left, right = (side.runs for side in found.sides)
    if len(left) == len(right) == 1:
        common = ["--common"] if any(found.answers.left_out) else []
        command = hints.tunix_rt("report", right[0].name, "--against", left[0].name, *common)
        out(f"side by side in a browser:\n{command}")


def facts(found: Comparison) -> Iterator[tuple[str, str]]:
    """Name and text of each line below the sentence."""
    each, metric, runs = found.estimate, found.metric, [len(side.runs) for side in found.sides]
    yield "before", f"{found.sides[0].name}: {_mean(found, False)}"
    yield "now", f"{found.sides[1].name}: {_mean(found, True)}"
    low, high = (metric.signed(end) for end in each.interval())
    yield "difference", f"{metric.signed(each.difference)} {metric.unit}, 95 % interval [{low}, {high}]"
    low, high = (metric.signed(end) for end in bootstrap(found.scores))
    drawn = "prompts" if max(runs) == 1 else "prompts and runs"
    nothing = "; there is nothing to draw, so it says nothing" if low == high else ""
    yield "bootstrap", f"[{low}, {high}]: {drawn} drawn {DRAWS:,} times (seed {SEED}){nothing}"
    less, more = discordant(found.scores)
    changed = f"{more} of {each.prompts} prompts higher, {less} lower"
    test = "McNemar's exact test" if each.exact is not None else "from the interval"
    yield "p-value", f"{_p(each.p_value())} ({test}; {changed})"
    if each.seeds_known:
        yield "seeds", _seeds(found)
    if each.detectable() > 0:
        smallest = f"{metric.amount(each.detectable())} {metric.unit}"
        yield "power", f"a true difference of {smallest} is shown with a probability of 80 %"
    if metric.rate:
        needed = [f"{100 * effect:.0f} point{'s' * (effect > 0.01)}: {_needed(each, effect)}" for effect in EFFECTS]
        yield "more", f"prompts to show {'; '.join(needed)}"
    for number, caution in enumerate(found.cautions()):
        yield "note" if number == 0 else f"note {number + 1}", caution


def _mean(found: Comparison, right: bool) -> str:
    side, metric = found.sides[right], found.metric
    mean = metric.shown(found.estimate.right if right else found.estimate.left)
    if len(side.runs) == 1:
        return f"{metric.name} {mean}"
    return f"{metric.name} {mean}, runs {', '.join(map(metric.shown, found.scores.means_of(right)))}"


def _seeds(found: Comparison) -> str:
    """How much of the uncertainty is due to seeds, as standard errors."""
    each, metric = found.estimate, found.metric
    seeds, prompts = (f"{metric.amount(variance**0.5)} {metric.unit}" for variance in (each.of_seeds, each.of_prompts))
    return f"standard error {seeds} from seeds ({each.degrees_of_seeds:.1f} degrees of freedom), {prompts} from prompts"


def _needed(each: Estimate, effect: float) -> str:
    number = each.prompts_for(effect)
    if number is None:
        return "seeds too"
    return f"{number - each.prompts:,} more" if number > each.prompts else "enough"


def _p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _show_slices(found: Comparison) -> None:
    rows = []
    for each in found.slices():
        part, metric = each.estimate, found.metric
        low, high = (metric.signed(end) for end in part.interval())
        numbers = [str(each.prompts), metric.shown(part.left), metric.shown(part.right)]
        rows.append([f"{each.name}={each.value}", *numbers, metric.signed(part.difference), f"[{low}, {high}]"])
        rows[-1].append(_p(each.p_holm))
    if rows:
        title = "slices (intervals of 95 % each; p-values corrected for their number, Holm)"
        table(title, ["slice", "prompts", "before", "now", "by", "interval", "p"], rows, right=(1, 2, 3, 4, 6))
        out()


def _show_flips(found: Comparison, number: int) -> None:
    runs = [run for side in found.sides for run in side.runs]
    for title, flips in zip(_titles(found), found.flips, strict=True):
        out(f"{title}: {len(flips)}\n")
        for each in told(flips[:number], found.answers, found.scores.num_left, runs):
            _show_flip(found, each)


def _titles(found: Comparison) -> tuple[str, str]:
    return ("harmful flips", "beneficial flips") if found.metric.better else ("lower", "higher")


def _show_flip(found: Comparison, each: Told) -> None:
    metric = found.metric
    out(f" {each.flip.id}: {metric.shown(each.flip.left)} → {metric.shown(each.flip.right)}")
    texts = {"prompt": each.prompt, "reference": each.reference}
    texts |= {"before": each.completions[0] or "(none)", "now": each.completions[1] or "(none)"}
    for name, text in texts.items():
        lines = [part for line in cut(text, LONGEST).split("\n") for part in textwrap.wrap(line, WIDTH - 14) or [""]]
        out("\n".join(f"  {name if at == 0 else '':9}  {line}" for at, line in enumerate(lines)))
    out()


def to_json(found: Comparison) -> JsonObject:
    """Everything, with all flips and their whole texts."""
    each, runs = found.estimate, [run for side in found.sides for run in side.runs]
    harmful, beneficial = (told(some, found.answers, found.scores.num_left, runs) for some in found.flips)
    return {
        "sentence": found.sentence(),
        "verdict": found.verdict(),
        "metric": found.metric.name,
        "margin": found.margin,
        "not_worse": found.not_worse(),
        "left": _side(found, False),
        "right": _side(found, True),
        **_numbers(each),
        "bootstrap": bootstrap(found.scores),
        "detectable": each.detectable(),
        "prompts_for": {str(effect): each.prompts_for(effect) for effect in EFFECTS} if found.metric.rate else {},
        "slices": [
            {"key": part.name, "value": part.value, **_numbers(part.estimate), "p_holm": part.p_holm}
            for part in found.slices()
        ],
        "notes": list(found.cautions()),
        "harmful": [_flip(flip) for flip in harmful],
        "beneficial": [_flip(flip) for flip in beneficial],
    }


def _side(found: Comparison, right: bool) -> JsonObject:
    return {"runs": [run.name for run in found.sides[right].runs], "values": found.scores.means_of(right)}


def _numbers(each: Estimate) -> JsonObject:
    parts = {"prompts": each.of_prompts**0.5, "seeds": each.of_seeds**0.5 if each.seeds_known else None}
    return {
        "prompts": each.prompts,
        "before": each.left,
        "now": each.right,
        "difference": each.difference,
        "level": LEVEL,
        "interval": list[float](each.interval()),
        "p_value": each.p_value(),
        "test": "mcnemar exact" if each.exact is not None else "interval",
        "standard_errors": parts,
    }


def _flip(each: Told) -> JsonObject:
    flip: Flip = each.flip
    texts = {"prompt": each.prompt, "reference": each.reference, "completions": list(each.completions)}
    return {"id": flip.id, "before": flip.left, "now": flip.right, **texts}
