"""Separators that content cannot imitate: a backslash escapes those inside content.

Backslashes count only directly before a separator (there 2n mean n, and 2n + 1 mean n and a hidden
separator), so that `\\frac` stays unchanged. The reader takes separators from the left; the writer works from
the right, where it knows what the reader will see: so no content, not even one that overlaps a separator, is
read as anything else.
"""

from __future__ import annotations


def escape(content: str, separator: str, tail: str) -> str:
    """`content` with backslashes such that `split` finds no separator in it; `tail` is what follows."""
    first = (content + tail).find(separator)
    if not 0 <= first < len(content) and not content.endswith("\\"):
        return content
    backwards: list[str] = []
    seen, in_front = tail[: len(separator)], tail.startswith(separator)
    for character in reversed(content):
        written = character
        if character == "\\":
            written = "\\\\" if in_front else "\\"
        elif (character + seen).startswith(separator):
            in_front, written = True, "\\" + character
        else:
            in_front = False
        backwards.append(written)
        seen = (written + seen)[: len(separator)]
    return "".join(reversed(backwards))


def split(text: str, separator: str) -> list[str]:
    """The pieces of a text between separators that are not hidden, with hidden ones and backslashes restored."""
    if "\\" not in text:
        return text.split(separator)
    pieces, piece, position = [], "", 0
    while (found := text.find(separator, position)) >= 0:
        begin = position + len(text[position:found].rstrip("\\"))
        piece += text[position:begin] + "\\" * ((found - begin) // 2)
        if (found - begin) % 2:
            piece += separator[0]
            position = found + 1
        else:
            pieces.append(piece)
            piece, position = "", found + len(separator)
    return [*pieces, piece + text[position:]]
