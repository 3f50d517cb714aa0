"""Which answers count as the reference."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt.config.results import EvaluationConfig
from tunix_rt.evaluation.answers import Match, compare, contains, extract, judge, vote_key
from tunix_rt.evaluation.numerals import find_numerals, read_numeral
from tunix_rt.traces.adapters import adapt
from tunix_rt.traces.messages import Rules
from tunix_rt.traces.prediction import Prediction

NUMERIC = EvaluationConfig(
    answer="numeric", extract="format", relative_tolerance=0.0, steps="none", slices=(), pass_at=()
)


def in_thousands(digits: str, separator: str) -> str:
    head = len(digits) % 3 or 3
    return separator.join([digits[:head], *(digits[i : i + 3] for i in range(head, len(digits), 3))])


@st.composite
def written(draw: st.DrawFn, value: Fraction) -> str:
    """`value`, which has at most six decimals, in one of the many ways people write it."""
    size = abs(value)
    whole, rest = divmod(size, 1)
    decimals = f"{int(rest * 10**6):06d}".rstrip("0") + "0" * draw(st.integers(0, 2))
    digits = in_thousands(str(whole), draw(st.sampled_from(["", ",", " "])))
    forms = [f"{digits}.{decimals}" if decimals else digits]
    forms.append(f"{size.numerator}/{size.denominator}")
    forms.append(f"{size.numerator * 7} / {size.denominator * 7}")
    forms.append(f"{int(size * 10**6)}e-6")
    forms.append(f"{int(size * 10**6)} × 10^-6")
    if rest and whole:
        forms.append(f"{whole} {rest.numerator}/{rest.denominator}")
    sign = draw(st.sampled_from(["-", "−"])) if value < 0 else draw(st.sampled_from(["", "+"]))
    before = draw(st.sampled_from(["", " ", "x = ", "$", "€"]))
    currency = before in ("$", "€")
    units = [" per day"] if currency else [" km", "%", " percent."]
    after = draw(st.sampled_from(["", ".", " ", "\n", " apples", *units]))
    body = before + sign if currency and draw(st.booleans()) else (sign + before if currency else before + sign)
    return body + draw(st.sampled_from(forms)) + after


numbers = st.builds(Fraction, st.integers(-(10**9), 10**9), st.sampled_from([1, 2, 4, 8, 10, 100, 10**6]))


@given(st.data(), numbers)
def test_a_number_equals_itself_however_it_is_written(data: st.DataObject, value: Fraction) -> None:
    """Prevents: a right answer called wrong for its commas, sign, fraction form, currency or unit."""
    text = data.draw(written(value))
    read = read_numeral(text)
    assert read is not None and read.value == value


@given(st.data(), numbers, numbers)
def test_different_numbers_are_never_equal(data: st.DataObject, one: Fraction, other: Fraction) -> None:
    """Prevents: normalisation that drops what matters (`1,5` read as 15, `0.5` as 5)."""
    match = compare(data.draw(written(one)), data.draw(written(other)), NUMERIC)
    assert match.equal is (one == other) or (one == other and match.reason.startswith("unit "))


@given(numbers, numbers)
def test_numbers_differ_also_where_floats_would_not(one: Fraction, other: Fraction) -> None:
    """Prevents: comparison in floating point: 9007199254740993 and …992 are one float."""
    big = 2**53 * 10**6
    assert compare(str(big + one.numerator), str(big + other.numerator), NUMERIC).equal is (
        one.numerator == other.numerator
    )


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("$1,234.50", "1234.5"),
        ("-$5", "$-5"),
        ("50%", "50"),
        ("50 percent", "50%"),
        ("1½", "3/2"),
        ("-1 1/2", "-1.5"),
        ("1.5 × 10³", "1500"),
        ("1.5e3", "1 500"),
        ("472", "472 km"),
        ("472 kilometers", "472 km"),
        ("7 stickers/page", "7"),
        ("25 cm²", "25"),
        ("0407", "407"),
        ("47*86=4042", "4042"),
        ("３６６", "366"),
        ("1\u202f000", "1000"),
        ("50¢", "50 cents"),
        ("Friday", "friday"),
        ("true", "True "),
    ],
)
def test_equal(answer: str, reference: str) -> None:
    assert compare(answer, reference, NUMERIC).equal


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("0.5", "50%"),  # ToRA calls these equal; an error by a factor of 100 would hide there
        ("$50", "50%"),
        ("€5", "$5"),
        ("50 cents", "$50"),
        ("5 km", "5 m"),
        ("1,5", "15"),
        ("1,5", "1.5"),
        ("12,34", "1234"),
        ("5 million", "5"),
        ("5x", "5"),
        ("5!", "5"),
        ("5²", "52"),
        ("1½", "5.5"),  # NFKC alone makes this 11/2
        ("10:30", "10"),
        ("42 or 43", "42"),
        ("4/0", "4"),
        ("11 7/6", "73/6"),
        ("-$-5", "5"),
        ("", "0"),
        ("nothing", "0"),
        ("Monday", "Friday"),
        ("1/216", "1/217"),
    ],
)
def test_not_equal(answer: str, reference: str) -> None:
    assert not compare(answer, reference, NUMERIC).equal


def test_endless_numbers_are_no_numbers() -> None:
    """Prevents: a crash (Python converts at most 4,300 digits) or hours of arithmetic on what a model wrote."""
    for text in ("9" * 6000, "1e999999999", "1/" + "3" * 6000, "1,000" * 3000):
        assert read_numeral(text) is None
        assert not compare(text, "9", NUMERIC).equal


@given(st.text(alphabet="0123456789.,/-+−$€%½²eE×^ =apkm()\n", max_size=40))
def test_no_text_breaks_the_comparison(text: str) -> None:
    compare(text, text, NUMERIC)
    compare(text, "5", NUMERIC)
    contains(text, "5", NUMERIC)


def test_exact_compares_text(rules: Callable[..., EvaluationConfig]) -> None:
    exact = rules(answer="exact")
    assert compare(" FLSTY\n", "flsty", exact).equal
    assert compare("a  b", "a b", exact).equal
    assert compare("ﬁn", "fin", exact).equal
    for answer, reference in [("407", "0407"), ("1 + 1", "1 - 1"), ("5²", "52"), ("1,000", "1000")]:
        assert not compare(answer, reference, exact).equal


def test_tolerance_is_relative_and_exact_at_its_edge(rules: Callable[..., EvaluationConfig]) -> None:
    """Prevents: 103 judged against 100 ± 3 % in binary, where 0.03 is a little less than 3/100 or more."""
    loose = rules(relative_tolerance=0.03)
    assert compare("103", "100", loose).equal and compare("97", "100", loose).equal
    assert not compare("103.0001", "100", loose).equal
    assert compare("-103", "-100", loose).equal and not compare("0.01", "0", loose).equal


def test_extract_from_the_format(rules: Callable[..., EvaluationConfig], predict: Callable[..., Prediction]) -> None:
    """Prevents: an answer cut off by the length limit counted as right (`174` of `1746`)."""
    assert extract(predict("a", "12"), rules()) == "12"
    cut = predict("a", "12", finish_reason="length")
    assert judge(cut, "12", rules()) == (None, Match(False, "no end token"))
    assert judge(predict("a", None), "12", rules())[1].reason == "not in the format"
    failed = predict("a", None, finish_reason="error", error="prompt too long")
    assert judge(failed, "12", rules())[1].reason == "failed: prompt too long"


def test_extract_the_last_number(rules: Callable[..., EvaluationConfig], predict: Callable[..., Prediction]) -> None:
    last = rules(extract="last_number")
    for completion, expected in [
        ("So 10-4 is 6.", "6"),
        ("He earns $1,234.50.", "$1,234.50"),
        ("It is -4", "-4"),
        ("5–3", "3"),
        ("20% off", "20%"),
        ("takes 4 4/9 hours", "4 4/9"),
        ("pi is 3.14159", "3.14159"),
        ("agent XDY2K", None),
        ("none", None),
    ]:
        assert extract(predict("a", None, completion=completion, finish_reason="length"), last) == expected
    assert judge(predict("a", None, completion="-"), "1", last)[1].reason == "no number in the completion"


def test_minus_between_numbers_is_no_sign() -> None:
    assert find_numerals("a 10-4 (2)-3 x-1 is -4") == ["10", "4", "2", "3", "1", "-4"]


def test_contains_whole_numbers_and_words_only(rules: Callable[..., EvaluationConfig]) -> None:
    assert contains("the total is $1,200 in all", "1200", NUMERIC)
    assert not contains("the total is 11200 or 12", "1200", NUMERIC)
    assert contains("It is in Paris, France", "paris", NUMERIC)
    assert not contains("a comparison", "paris", NUMERIC)
    exact = rules(answer="exact")
    assert contains("8*7=56;1746", "1746", exact)
    assert not contains("8*7=56;17460", "1746", exact) and not contains("1746.5", "1746", exact)


def test_votes_are_for_numbers(rules: Callable[..., EvaluationConfig]) -> None:
    assert vote_key("$1,000.", rules()) == vote_key("1e3", rules()) == 1000
    assert vote_key("Paris ", rules()) == vote_key("paris", rules())
    assert vote_key(None, rules()) is None
    assert vote_key("07", rules(answer="exact")) != vote_key("7", rules(answer="exact"))


@pytest.mark.parametrize(
    ("answer", "reference", "reason"),
    [
        ("$12", "12", "same number"),
        ("13", "12", "other number"),
        ("12 or 13", "12", "not one number"),
        ("12%", "$12", "unit %, expected $"),
        ("12.1", "12", "within the relative tolerance 0.01"),
        ("Friday", "friday", "same text"),
        ("12", "Friday", "other text"),
    ],
)
def test_every_verdict_says_why(
    answer: str, reference: str, reason: str, rules: Callable[..., EvaluationConfig]
) -> None:
    assert compare(answer, reference, rules(relative_tolerance=0.01)).reason == reason


def test_every_gsm8k_reference_equals_itself(
    real_data: Path, rules: Callable[..., EvaluationConfig], predict: Callable[..., Prediction]
) -> None:
    """100 % against themselves, by both ways of extraction, and 0 % against the next number."""
    last = rules(extract="last_number")
    for name in ("train", "test"):
        for line in (real_data / "gsm8k" / f"{name}.jsonl").read_text("utf-8").splitlines():
            reference = adapt(json.loads(line), "gsm8k", name, Rules()).final_answer
            value = read_numeral(reference)
            assert value is not None and value.value == int(reference.replace(",", ""))
            assert judge(predict("a", reference), reference, rules())[1].equal
            said = predict("a", None, completion=f"so 3 + 4 is 7 and the answer is ${reference}.")
            assert judge(said, reference, last)[1].equal
            assert not compare(str(value.value + 1), reference, rules()).equal
