"""LaTeX's and Markdown's ordinary notation for numbers and words → plain text.

Read is what answers of public suites use (hendrycks/math at 940d1bf `modeling/math_equivalence.py`, `_strip_string`;
EleutherAI/lm-evaluation-harness at 4785623 `lm_eval/tasks/minerva_math/utils.py`, `normalize_final_answer`;
huggingface/Math-Verify at 5d148cf `tests/test_all.py`): fractions of numerals, text and units, spacing, thousands
(`{,}`), degrees, boxes, mathematical delimiters. What is not (roots, matrices) stays as it is, for the scorer `math`.
"""

from __future__ import annotations

import re

from tunix_rt.evaluation.numerals import unify

LONGEST = 2_000
"""Most characters of an answer that is taken apart; a longer one is too long to judge, except as text."""
_DOLLAR = "\ue000"
"""Stands for an escaped dollar sign while delimiters are removed."""
_END_TOKENS = re.compile(r"(?:\s|</s>|<\|[a-z_]{1,20}\|>|<(?:eos|end_of_turn|end|pad)>)+$")
_LATEX = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\\$", _DOLLAR),
        (r"\\(?:left|right|[bB]igg?[lr]?)(?![a-z])", ""),
        (r",\\!\s*", ","),
        (r"\\!", ""),
        (r"\\(?:[,;: ]|q?quad(?![a-z]))|(?<=[^\s~])~(?!~)", " "),
        (r"\{,\}", ","),
        (r"\{([,.:/%])\}", r"\1"),
        (r"\\([%#&_{}])", r"\1"),
        (
            r"\\(?:text(?:bf|it|rm|normal|tt)?|mbox|underline|math(?:rm|bf|it|sf)|operatorname|emph)\s?\{([^{}\\]*)\}",
            r" \1 ",
        ),
        (r"\s?\^\s?(?:\{\s?\\circ\s?\}|\\circ(?![a-z]))|\\degree(?![a-z])", "°"),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\\frac\s?(?:\{\s?([0-9.,]+)\s?\}|([0-9]))\s?(?:\{\s?([0-9.,]+)\s?\}|([0-9]))", r" \1\2/\3\4 "),
        (r"\\frac\s?\{\s?-\s?([0-9.,]+)\s?\}\s?\{\s?([0-9.,]+)\s?\}", r"-\1/\2 "),
        (r"\\frac\s?\{\s?([0-9.,]+)\s?\}\s?\{\s?-\s?([0-9.,]+)\s?\}", r"-\1/\2 "),
        (r"\\(?:emptyset|varnothing)(?![a-z])", "∅"),
        (r"\\(?:overline|bar|dot)\s?\{?([0-9]+)\}?", r"(\1)"),
        (r"\\(?:times|cdot)(?![a-z])", "×"),
        (r"\\(?:approx|simeq|sim)(?![a-z])", "≈"),
        (r"\\pm(?![a-z])", "±"),
        (r"\\infty(?![a-z])", "∞"),
        (r"\\(?:pi)(?![a-z])", "π"),
        (r"\s*\^\s?\{\s?([-+]?[0-9]+)\s?\}", r"^\1"),
        (r"(?<=[a-z])\s+\^(?=[23])", "^"),
        (r"\*\*(?=[-+]?[0-9])(?<=[0-9]\*\*)", "^"),
        (r"\\[()\[\]]|\\\\?$", ""),
    )
]
_MATHS = (re.compile(r"\$\$([^$]+)\$\$"), re.compile(r"\$(?=\S)([^$]*?\S)\$(?![0-9])"))
"""Pandoc's rule: an opening `$` has a character at its right, a closing one at its left and no digit at its right."""
_TAGS = re.compile(r"\s*<(answer|b|strong|em|i|u|code)>([^<>]*)</\1>\s*", re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)\s?(?=\{)")
_BETWEEN = re.compile(
    r"[\s$.]{0,9}(?:\\[)\]])?\s{0,9}(?:,|,?\s?(?:\\text\{\s?)?(?:and|or)(?:\s?\})?)\s{0,9}(?:\\[(\[])?[\s$]{0,9}"
)
_QUOTES = str.maketrans("’‘“”", "''\"\"")
_PAIRS = {"**": "**", "__": "__", "*": "*", "`": "`", '"': '"', "'": "'", "(": ")", "[": "]", "{": "}"}
_MARK = re.compile(
    r"(?:#{2,6}|[*_]{0,2}(?:so |thus |therefore |hence )?(?:the )?(?:final |correct )?(?:answer|result)"
    r"[*_]{0,2}(?: is:?|:|(?= [-+$(]?[0-9]))[*_]{0,2})(?= ?\S)",
    re.IGNORECASE,
)


def plain_text(text: str) -> str:
    """`text` without LaTeX's and Markdown's notation, in one line; at most `LONGEST` characters are expected."""
    text = _END_TOKENS.sub("", unify(text)).translate(_QUOTES)
    text = tagged[2] if (tagged := _TAGS.fullmatch(text)) else text
    text = _unboxed(text.replace("\\$", _DOLLAR))
    for pattern in _MATHS:
        text = pattern.sub(r" \1 ", text)
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    return " ".join(text.replace(_DOLLAR, "$").split())


def bare(text: str, brackets: bool = True) -> str:
    """A plain text without what stands around an answer: a marker, quotes, Markdown, a full stop, and brackets."""
    before = None
    while text != before:
        before = text
        text = _MARK.sub("", text, count=1) if _MARK.match(text) else text
        text = _unwrapped(re.sub(r"(?<!\.)[.,;]$|^[:=]+(?=.)", "", text.strip()).strip(), brackets)
    return text


def _unwrapped(text: str, brackets: bool) -> str:
    """`text` without the pair of signs that encloses all of it, if there is one."""
    for opening, closing in _PAIRS.items():
        inner = text[len(opening) : -len(closing)]
        if text.startswith(opening) and text.endswith(closing) and inner.strip():
            encloses = not any(sign in inner for sign in {opening, closing})
            return inner.strip() if encloses and (brackets or opening not in "([{") else text
    return text


def _unboxed(text: str) -> str:
    """What is in the last box, or in the last ones if they are listed; the text itself if it has none."""
    found = boxes(text)
    return found[-1] if found else text


def boxes(text: str) -> list[str]:
    """What is in each closed box; boxes with nothing but `,`, `and` or `or` between them are one list."""
    found: list[str] = []
    end = None
    for match in _BOX.finditer(text):
        inside = braced(text, match.end())
        if inside is None:
            continue
        joined = found and end is not None and _BETWEEN.fullmatch(text, end, match.start())
        found = [*found[:-1], f"{found[-1]}, {inside}"] if joined else [*found, inside]
        end = match.end() + len(inside) + 2
    return found


def braced(text: str, start: int) -> str | None:
    """What is between the brace at `start` and the one that closes it; None if it is not closed."""
    depth = 0
    for place in range(start, len(text)):
        if text[place] in "{}" and text[place - 1] != "\\":
            depth += 1 if text[place] == "{" else -1
            if depth == 0:
                return text[start + 1 : place]
    return None
