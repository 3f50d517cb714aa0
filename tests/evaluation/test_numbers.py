"""Numbers, however people write them, are what they say and nothing else."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.scorers import judged, scorer
from tunix_rt.evaluation.numbers import read_number
from tunix_rt.evaluation.numerals import numerals_in
from tunix_rt.evaluation.scorer import Question
from tunix_rt.evaluation.units import units_of
from tunix_rt.evaluation.words import ONES, TENS, read_words


def in_thousands(digits: str, separator: str) -> str:
    head = len(digits) % 3 or 3
    return separator.join([digits[:head], *(digits[i : i + 3] for i in range(head, len(digits), 3))])


@st.composite
def written(draw: st.DrawFn, value: Fraction) -> str:
    """`value`, which has at most six decimals, in one of the many ways people write it."""
    size = abs(value)
    whole, rest = divmod(size, 1)
    decimals = f"{int(rest * 10**6):06d}".rstrip("0") + "0" * draw(st.integers(0, 2))
    digits = in_thousands(str(whole), draw(st.sampled_from(["", ",", " ", "'", "{,}"])))
    forms = [f"{digits}.{decimals}" if decimals else digits]
    forms.append(f"{size.numerator}/{size.denominator}")
    forms.append(f"{size.numerator * 7} / {size.denominator * 7}")
    forms.append(rf"\frac{{{size.numerator}}}{{{size.denominator}}}")
    forms.append(f"{int(size * 10**6)}e-6")
    forms.append(f"{int(size * 10**6)} × 10^-6")
    if rest and whole:
        forms.append(f"{whole} {rest.numerator}/{rest.denominator}")
        forms.append(rf"{whole}\frac{{{rest.numerator}}}{{{rest.denominator}}}")
    sign = draw(st.sampled_from(["-", "−"])) if value < 0 else draw(st.sampled_from(["", "+"]))
    before = draw(st.sampled_from(["", " ", "x = ", "$", "€", "≈ ", "Answer: "]))
    currency = before in ("$", "€")
    units = [" per day"] if currency else [" km", "%", " percent.", r"\%", r"\text{ km}"]
    after = draw(st.sampled_from(["", ".", " ", "\n", " apples", "</s>", *units]))
    body = before + sign if currency and draw(st.booleans()) else (sign + before if currency else before + sign)
    return body + draw(st.sampled_from(forms)) + after


numbers = st.builds(Fraction, st.integers(-(10**9), 10**9), st.sampled_from([1, 2, 4, 8, 10, 100, 10**6]))


@given(st.data(), numbers)
def test_a_number_equals_itself_however_it_is_written(data: st.DataObject, value: Fraction) -> None:
    """Prevents: a right answer called wrong for its commas, sign, fraction form, currency, unit or LaTeX."""
    text = data.draw(written(value))
    read = read_number(text)
    assert read is not None and read.value == value


@given(st.data(), numbers, numbers)
def test_different_numbers_are_never_equal(data: st.DataObject, one: Fraction, other: Fraction) -> None:
    """Prevents: normalisation that drops what matters (`1,5` read as 15, `0.5` as 5)."""
    match = judged("number", data.draw(written(one)), data.draw(written(other)))
    if one != other:
        assert not match.equal or {one, other} == {one, one / 100} or {one, other} == {one, one * 100}
    else:
        assert match.equal or match.reason.startswith("unit ")


@given(numbers, numbers)
def test_numbers_differ_also_where_floats_would_not(one: Fraction, other: Fraction) -> None:
    """Prevents: comparison in floating point: 9007199254740993 and …992 are one float."""
    big = 2**53 * 10**6
    same = judged("number", str(big + one.numerator), str(big + other.numerator)).equal
    assert same is (one.numerator == other.numerator)


def in_english(number: int) -> str:
    """A number below a million in words, as a school book has it."""
    if number >= 1000:
        rest = f" {in_english(number % 1000)}" if number % 1000 else ""
        return f"{in_english(number // 1000)} thousand{rest}"
    if number >= 100:
        rest = f" and {in_english(number % 100)}" if number % 100 else ""
        return f"{in_english(number // 100)} hundred{rest}"
    if number < 20:
        return next(word for word, value in ONES.items() if value == number)
    ten = next(word for word, value in TENS.items() if value == number // 10 * 10)
    return f"{ten}-{in_english(number % 10)}" if number % 10 else ten


@given(st.integers(0, 999_999))
def test_a_number_in_words_is_that_number(number: int) -> None:
    assert read_words(in_english(number)) == (number, "")
    assert judged("number", f"{in_english(number)} apples", str(number)).equal
    assert not judged("number", in_english(number), str(number + 1)).equal


@pytest.mark.parametrize("digits", [14, 17])
def test_a_float_is_what_it_was_printed_from(digits: int) -> None:
    """Every n/d as a program prints it equals the fraction; one digit off does not."""
    for numerator, denominator in [(1, 3), (2, 7), (75, 55), (131, 38), (7, 12), (1000, 3)]:
        text = f"{numerator / denominator:.{digits}g}"
        assert judged("number", text, f"{numerator}/{denominator}").equal
        assert judged("number", f"{numerator}/{denominator}", text).equal
        assert not judged("number", f"{numerator / denominator + 1e-9}", f"{numerator}/{denominator}").equal
        assert not judged("number", f"{numerator / denominator:.5g}", f"{numerator}/{denominator}").equal
    assert judged("number", "0.30000000000000004", "0.3").equal


def test_tolerance_is_relative_and_exact_at_its_edge() -> None:
    """Prevents: 103 judged against 100 ± 3 % in binary, where 0.03 is a little less than 3/100 or more."""
    loose = scorer("number", relative_tolerance=0.03)
    for answer, reference, equal in [
        ("103", "100", True),
        ("97", "100", True), ("103.0001", "100", False), ("-103", "-100", True), ("0.1", "0", False),
    ]:  # fmt: skip
        assert loose.match(answer, Question(reference)).equal is equal


@pytest.mark.parametrize(
    ("answer", "reference", "reason"),
    [
        ("$12", "12", "same number"),
        ("13", "12", "other number"),
        ("12 or 13", "12", "not one number"),
        ("12%", "$12", "unit %, expected $"),
        ("5 m", "5 kg", "unit m or min, expected kg"),
        ("12.1", "12", "within the relative tolerance 0.01"),
        ("Friday", "friday", "same text"),
        ("12", "Friday", "other text"),
        ("1" * 3000, "12", "too long to judge"),
    ],
)
def test_every_verdict_says_why(answer: str, reference: str, reason: str) -> None:
    assert judged("number", answer, reference, relative_tolerance=0.01).reason == reason


def test_a_unit_is_a_known_one_or_a_plural() -> None:
    assert units_of("square inches") == units_of("in^2") == units_of("sq in") == {"in^2"}
    assert units_of("miles per hour") == units_of("mph") | {"mi/h"}
    assert units_of("green apples per day") == units_of("people left") == frozenset()
    for changing in (
        "thirds",
        "and a half",
        "is wrong",
        "pi",
        "below zero",
        "to the power of ten",
        "less one",
        "score",
    ):
        assert units_of(changing) is None


@given(st.text(alphabet="0123456789.,/-+−$€%½²eE×^ =apkm()\\{}frac|±\n", max_size=40))
def test_no_text_breaks_the_comparison(text: str) -> None:
    for kind in ("number", "set", "choice", "text", "exact"):
        judge = scorer(kind)
        judge.match(text, Question(text or "x"))
        judge.match(text, Question("5"))
        judge.contains(text, Question("5"))


def test_minus_between_numbers_is_no_sign() -> None:
    assert list(numerals_in("a 10-4 (2)-3 x-1 is -4")) == ["10", "4", "2", "3", "1", "-4"]
