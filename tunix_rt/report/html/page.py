"""Puts `report.html` together: what can be read without scripts is written by a template, the rest is data for them.

The same files give the same bytes. Whatever a model or a data file says is text: the template escapes it, the scripts
make text nodes of it, and a Content-Security-Policy lets nothing run that is not of this package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunix_rt.comparison.pairs import aligned
from tunix_rt.files import JsonObject, write_text
from tunix_rt.report.html import embed
from tunix_rt.report.html.answers import Side, baseline_of, check_pairs, detached_tokens, prompts, side_of
from tunix_rt.report.html.charts import charts
from tunix_rt.report.html.headline import against, most, problems
from tunix_rt.report.html.rollouts import rollouts
from tunix_rt.report.markdown import facts
from tunix_rt.report.results import Results
from tunix_rt.runs.diff import value_at
from tunix_rt.runs.folder import RunFolder
from tunix_rt.terminal import visible


def write_page(run: RunFolder) -> None:
    """Write `report.html` of a run atomically. Raises DataError if a record is damaged."""
    write_text(run.page, page(run))


def page(run: RunFolder, other: RunFolder | None = None, common: bool = False) -> str:
    """The page of a run; beside its answers those of `other`, or else those of the model before training.

    `common`: only beside answers to questions of both. Raises DataError if a record is damaged, InputError if `other`
    cannot be compared with the run (`comparison.pairs.aligned`).
    """
    results = Results.of(run)
    side = side_of(run, "this run" if other is None else run.name)
    beside, others = (baseline_of(run), results.before) if other is None else _against(run, other, common)
    if other is None and beside is not None:
        check_pairs(side, beside)
    title = beside.title if beside is not None else "before training"
    drawn = charts(results, side, (title, others) if others else None)
    asked = prompts(side, beside)
    found = problems(side, beside)
    sampled = rollouts(results)
    context = {
        "run": run.name,
        "other": None if beside is None else beside.title,
        "split": value_at(run.read_config(), "generation.split"),
        "metrics": results.metrics,
        "against": None if beside is None or not results.metrics else against(side, beside, results.metrics, others),
        "problems": found,
        "most": most(found),
        "answers": len(side.answered),
        "prompts": len(asked),
        "rollouts": sampled,
        "charts": drawn,
        "facts": _facts(results),
    }
    tokens = detached_tokens(asked)
    data = {"answers": {"other": context["other"], "prompts": asked}, "tokens": tokens, "charts": drawn}
    data |= {"rollouts": sampled} if sampled else {}
    return _rendered(context, data)


def _against(run: RunFolder, other: RunFolder, common: bool) -> tuple[Side, JsonObject]:
    """The answers of another run as far as they can be compared with those of `run`, and its metrics."""
    found = aligned((other, run), common)
    return side_of(other, other.name).among(found.keys), Results.of(other).metrics


def _facts(results: Results) -> dict[str, str]:
    """Sections of report.md as HTML; raw HTML in them stays text."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "html_inline", "html_block"])
    told = {title: parser.render("\n".join(lines)) for title, lines in facts(results).items() if lines}
    # A table of Markdown has a heading even where there is nothing to say in it, which a screen reader reads out.
    return {title: body.replace("<th></th>", "<td></td>") for title, body in told.items()}


def _rendered(context: JsonObject, data: JsonObject) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        """Text from records with invisible characters made visible, as everywhere."""
        return visible(value, keep="\n\t") if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=shown, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}"
    scripts, styles = ([embed.static(name) for name in names] for names in (embed.SCRIPTS, embed.STYLES))
    context = context | {
        "facts": {title: Markup(body) for title, body in context["facts"].items()},  # noqa: S704 - the parser's
        "policy": Markup(embed.policy(scripts, styles)),  # noqa: S704 - our own
        "styles": [Markup(style) for style in styles],  # noqa: S704
        "licence": embed.static("vega.license.txt"),
        "scripts": [Markup(script) for script in scripts],  # noqa: S704
        "data": {name: embed.packed(value) for name, value in data.items()} | {"vega": embed.vega()[0]},
    }
    return environment.from_string(embed.static("page.html")).render(context)


def default_file(run: RunFolder, other: RunFolder | None) -> Path:
    """Where a person's own copy is written: not into the run's folder, whose files have their recorded sha256."""
    name = "-".join([run.path.parent.name, run.path.name])
    return run.root / (f"{name}.html" if other is None else f"{name}-against-{other.path.name}.html")
