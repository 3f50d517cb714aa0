"""Every key of the config: what may be given, the default, and what it does; for a part of them, a path or a word.

`options training` shows a section, `options seed` every key with these letters, `options tokens` also what a word is
said of. `--markdown` prints the page docs/config.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from tunix_rt.commands import Parser
from tunix_rt.config.folders import groups
from tunix_rt.terminal import out, say, wrapped_table

if TYPE_CHECKING:
    from tunix_rt.config.options import Option, Section

COLUMNS = ("key", "may be", "default", "what it does")
PAGE = """# Every key of the config

Written by `python -m tunix_rt options --markdown`; a test compares it with the code. In a terminal,
`python -m tunix_rt options PREFIX` shows the same for a section, a key or a word.

`KEY=VALUE` on the command line or a line in `conf/experiment/NAME.yaml` changes a value, `GROUP=NAME` chooses a file.
The default is that of the config without any override (`quickstart`), else that of the file in parentheses; where files
differ, it is *by file*. A key with *yes* under "new run" changes the result: another value is another run (identity).
The others change where and how it runs, or a label. Before a sentence: the kinds of the section that have the key."""


def main(arguments: Sequence[str]) -> int:
    """Print a table, JSON, or the page. Raises InputError if no key is meant."""
    parser = Parser("options", __doc__, "--json")
    parser.add_argument("prefix", nargs="?", default="", help="a dotted path, or a word (default: every key)")
    parser.add_argument("--markdown", action="store_true", help="print the page docs/config.md")
    chosen = parser.parse(arguments)

    from tunix_rt.config.options import options, sections

    found = options(chosen.prefix)
    if chosen.json:
        from tunix_rt.files import to_json

        out(to_json([asdict(option) for option in found]))
    elif chosen.markdown:
        out("\n".join([PAGE, *_page(list(sections()), found)]))
    else:
        say("defaults are those without any override (quickstart); --cfg job shows the values of an experiment")
        wrapped_table(COLUMNS, [_row(option) for option in found])
    return 0


def _row(option: Option) -> tuple[str, str, str, str]:
    """The cells of a table without markup."""
    may_be = option.allowed.replace("`", "") + (f", in {option.unit}" if option.unit else "")
    kinds = f"({', '.join(option.kinds)}) " if option.kinds else ""
    return option.key, may_be, option.default, kinds + option.sentence.replace("`", "")


def _page(sections: Sequence[Section], found: Sequence[Option]) -> Iterator[str]:
    """A heading, what the section is, the files of its group, and a table of its keys, for each section."""
    files = groups()
    holders = sorted((section.key for section in sections), key=len, reverse=True)
    for section in sections:
        inside = [option for option in found if next(k for k in holders if _below(option.key, k)) == section.key]
        if inside:
            group = section.key.replace(".", "/")
            yield f"\n## {section.key or 'The experiment'}\n"
            null = " May be `null`." if section.optional else ""
            chosen = f" Files: {', '.join(f'`{group}={name}`' for name in files[group])}." if group in files else ""
            yield f"{section.sentence}{null}{chosen}".strip()
            yield "\n| key | may be | default | new run | what it does |\n|---|---|---|---|---|"
            yield from map(_line, inside)


def _below(key: str, section: str) -> bool:
    return not section or key.startswith(f"{section}.")


def _line(option: Option) -> str:
    may_be = option.allowed + (f", in {option.unit}" if option.unit else "")
    kinds = f"({', '.join(f'`{kind}`' for kind in option.kinds)}) " if option.kinds else ""
    new = "yes" if option.identity else "no"
    cells = (f"`{option.key}`", may_be, f"`{option.default}`", new, kinds + option.sentence)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
