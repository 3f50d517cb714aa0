"""Texts between messages → a template of Ollama (Go's text/template) that writes them, byte for byte.

Every text is a Go string literal in an action, so nothing depends on what is trimmed around the template, and no text
can be read as an action.
"""

from __future__ import annotations

import json

from tunix_rt.exporting.conversation import FIRST, Turns

LAST = "eq (len (slice $.Messages $i)) 1"
"""Whether the message of `range` is the last one."""


def template(turns: Turns) -> str:
    """The template: all messages where previous turns can be shown, else a system message and the last question."""
    return _all(turns) if turns.several else _last(turns)


def _all(turns: Turns) -> str:
    roles = [role for role in ("system", "user", "assistant") if any(role == after for _, after in turns.between)]
    found = '{{ $before := "" }}{{ range .Messages }}'
    for place, role in enumerate(roles):
        found += f"{{{{ {'else ' if place else ''}if eq .Role {literal(role)} }}}}"
        found += f"{_before(turns, role)}{{{{ .Content }}}}{{{{ $before = {literal(role)} }}}}"
    return f"{found}{{{{ end }}}}{{{{ end }}}}{{{{ {literal(turns.tail)} }}}}"


def _before(turns: Turns, role: str) -> str:
    """The text before a message, by what is before it."""
    texts = {before: text for (before, after), text in turns.between.items() if after == role}
    if len(texts) == 1:
        return f"{{{{ {literal(next(iter(texts.values())))} }}}}"
    found = ""
    for place, (before, text) in enumerate(sorted(texts.items(), reverse=True)):  # FIRST comes last
        condition = f"{'else ' if place else ''}if eq $before {literal(before)}"
        found += f"{{{{ {'else' if before == FIRST else condition} }}}}{{{{ {literal(text)} }}}}"
    return f"{found}{{{{ end }}}}"


def _last(turns: Turns) -> str:
    head = f"{{{{ {literal(turns.between[FIRST, 'user'])} }}}}"
    if turns.system:
        first, then = (literal(turns.between[pair]) for pair in ((FIRST, "system"), ("system", "user")))
        said = f"{{{{ {first} }}}}{{{{ .System }}}}{{{{ {then} }}}}"
        head = f"{{{{ if .System }}}}{said}{{{{ else }}}}{head}{{{{ end }}}}"
    asked = f"{{{{ range $i, $_ := .Messages }}}}{{{{ if {LAST} }}}}{{{{ .Content }}}}{{{{ end }}}}{{{{ end }}}}"
    return f"{head}{asked}{{{{ {literal(turns.tail)} }}}}"


def literal(text: str) -> str:
    """The text as a Go string literal, without a quote inside: three of them would end the template in a Modelfile."""
    inside = json.dumps(text, ensure_ascii=False)[1:-1]
    return '"' + inside.replace('\\"', "\\u0022") + '"'
