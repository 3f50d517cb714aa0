"""Runs a template of Go's text/template as Ollama does: the part of the language that the export writes.

An independent reading of https://pkg.go.dev/text/template. A template is a tree of nodes; what is not known raises.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

ACTION = re.compile(r'\{\{((?:[^"{}]|"(?:[^"\\]|\\.)*")*)\}\}')
WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\(|\)|[^\s()"]+')
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\\": "\\", '"': '"'}


def render(template: str, messages: list[dict[str, str]], system: str = "") -> str:
    """What Ollama gives to the model for these messages. `system`: its `.System`, all system messages."""
    pieces: list[tuple[bool, str]] = []
    end = 0
    for found in ACTION.finditer(template):
        pieces += [(False, template[end : found.start()]), (True, found[1].strip())]
        end = found.end()
    pieces.append((False, template[end:]))
    assert not any("{{" in text for action, text in pieces if not action), "an action was not understood"
    root = {"Messages": messages, "System": system}
    program = _Program(pieces, {"$": root})
    program.run(root)
    return "".join(program.written)


@dataclass
class _Program:
    pieces: list[tuple[bool, str]]
    variables: dict[str, Any]
    written: list[str] = field(default_factory=list)
    place: int = 0

    def run(self, dot: Any, silent: bool = False) -> str:
        """Run up to the `end`, `else` or `else if` of this block, which is returned."""
        while self.place < len(self.pieces):
            action, text = self.pieces[self.place]
            self.place += 1
            if not action:
                self.written += [] if silent else [text]
            elif text.split()[0] in ("end", "else"):
                return text
            else:
                self._action(text, dot, silent)
        return ""

    def _action(self, text: str, dot: Any, silent: bool) -> None:
        word, _, rest = text.partition(" ")
        if word == "if":
            self._if(rest, dot, silent)
        elif word == "range":
            self._range(rest, silent, dot)
        elif assigned := re.fullmatch(r"(\$\w+) :?= (.*)", text):
            if not silent:
                self.variables[assigned[1]] = self.value(assigned[2], dot)
        elif not silent:
            self.written.append(str(self.value(text, dot)))

    def _if(self, condition: str, dot: Any, silent: bool) -> None:
        taken = not silent and bool(self.value(condition, dot))
        then = self.run(dot, silent or not taken)
        if then.startswith("else if "):
            self._if(then.removeprefix("else if "), dot, silent or taken)
        elif then == "else":
            assert self.run(dot, silent or taken) == "end"
        else:
            assert then == "end"

    def _range(self, rest: str, silent: bool, dot: Any) -> None:
        names, _, over = rest.rpartition(" := ")
        items, start = self.value(over, dot), self.place
        for number, item in enumerate(items):
            for name, value in zip([n.strip() for n in names.split(",")], (number, item), strict=False):
                self.variables[name] = value
            self.place = start
            assert self.run(item, silent) == "end"
        if not items:
            self.run(None, silent=True)

    def value(self, text: str, dot: Any) -> Any:
        words = WORD.findall(text)
        found, left = self._call(words, dot)
        assert not left, left
        return found

    def _call(self, words: list[str], dot: Any) -> tuple[Any, list[str]]:
        values: list[Any] = []
        name, rest = words[0], words[1:]
        if name not in FUNCTIONS:
            rest = words
        while rest and rest[0] != ")":
            if rest[0] == "(":
                found, rest = self._call(rest[1:], dot)
                values.append(found)
                rest = rest[1:]
            else:
                values.append(self._term(rest[0], dot))
                rest = rest[1:]
        return (FUNCTIONS[name](*values) if name in FUNCTIONS else values[0]), rest

    def _term(self, word: str, dot: Any) -> Any:
        if word.startswith('"'):
            return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", _escape, word[1:-1])
        if word.isdigit():
            return int(word)
        if word.startswith("$"):
            name, _, path = word.partition(".")
            found = self.variables[name]
            return found[path] if path else found
        assert word.startswith("."), word
        return dot[word[1:]]


def _escape(found: re.Match[str]) -> str:
    return chr(int(found[1][1:], 16)) if found[1].startswith("u") and len(found[1]) > 1 else ESCAPES[found[1]]


FUNCTIONS = {
    "eq": lambda a, b: a == b,
    "len": len,
    "slice": lambda items, start: items[start:],
}
