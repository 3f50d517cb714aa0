"""Where an answer is found, and what is said if there are several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.evaluation.scorers import scorer
from tunix_rt.evaluation.extract import Extracted, extract
from tunix_rt.traces.prediction import Prediction

Predict = Callable[..., Prediction]
ALL: Any = ("format", "hashes", "boxed", "phrase", "fence", "last_number")


def test_from_the_format_if_it_ended(predict: Predict) -> None:
    """Prevents: an answer cut off by the length limit counted as right (`174` of `1746`)."""
    number = scorer("number")
    assert extract(predict("a", "12"), ("format",), number) == Extracted("12", "format", False, 0)
    for missing in (predict("a", "12", finish_reason="length"), predict("a", None), predict("a", "  ")):
        assert extract(missing, ("format",), number) is None
    assert extract(predict("a", None, completion="#### 5", finish_reason="error"), ALL, number) is None


@pytest.mark.parametrize(
    ("completion", "marker", "text", "ambiguous"),
    [
        ("so 3 + 4\n#### 7", "hashes", "7", False),
        ("#### 18\n\nQuestion: … #### 5", "hashes", "18", True),
        ("#### 18\n#### 18.0", "hashes", "18", False),
        (r"thus \boxed{\frac{1}{2}}.", "boxed", r"\frac{1}{2}", False),
        (r"\boxed{3}, no: \boxed{4}", "boxed", "4", True),
        (r"\(\boxed{3}\) and \(\boxed{-4}\)", "boxed", "3, -4", False),
        (r"\boxed{3} and #### 4", "hashes", "4", False),
        ("The answer is 42. That was easy, 5 minutes.", "phrase", "42", False),
        ("**Answer:** 3.5\nBye", "phrase", "3.5", False),
        ("The final answer is: $12$", "phrase", "$12$", False),
        ("Answer:\n17\nBye", "phrase", "17", False),
        ("The answer is:\n\n17", "phrase", "17", False),
        ("the answer is 3. Wait, the answer is 4.", "phrase", "3", True),
        (r"\boxed{never closed, the 8", "last_number", "8", False),
        ("```python\nx = 1\n```\nthen\n```\nx = 2\n```\n", "fence", "x = 2\n", False),
        ("So 10-4 is 6.", "last_number", "6", False),
    ],
)
def test_the_strongest_marker_wins(predict: Predict, completion: str, marker: Any, text: str, ambiguous: bool) -> None:
    found = extract(predict("a", None, completion=completion), ALL, scorer("number"))
    assert found is not None and (found.text, found.marker, found.ambiguous) == (text, marker, ambiguous)
    place = None if text == "3, -4" else found.start  # two boxes are not one piece of the completion
    assert found.start == place and (place is None or completion[place:].startswith(text))


def test_the_place_is_that_of_the_answer_and_not_of_the_same_text_elsewhere(predict: Predict) -> None:
    for completion, marker, start in [
        ("5 #### 5\nso 5", "hashes", 7), (r"5, \boxed{ 5 } as 5", "boxed", 11), ("The answer is 5. 5", "phrase", 14),
        ("5 and 5.", "last_number", 6), ("½ or 0.5", "last_number", 5),
    ]:  # fmt: skip
        found = extract(predict("a", None, completion=completion), (marker,), scorer("number"))  # type: ignore[arg-type]
        assert found is not None and found.start == start, completion
    assert extract(predict("a", "5", completion="5;5"), ("format",), scorer("number")) == Extracted(
        "5", "format", False, 2
    )


def test_the_order_is_the_declared_one(predict: Predict) -> None:
    said = predict("a", "1", completion=r"#### 2 \boxed{3}")
    for markers, text in [(("boxed", "format"), "3"), (("hashes",), r"2 \boxed{3}"), (("last_number", "boxed"), "3")]:
        found = extract(said, markers, scorer("exact"))  # type: ignore[arg-type]
        assert found is not None and found.text == text


def test_what_the_length_limit_cut_off_is_no_answer(predict: Predict) -> None:
    for completion in ("#### 174", "The answer is 174"):
        assert (
            extract(predict("a", None, completion=completion, finish_reason="length"), ALL[:4], scorer("exact")) is None
        )
    boxed = predict("a", None, completion=r"\boxed{174} and", finish_reason="length")
    assert extract(boxed, ALL, scorer("exact")) == Extracted("174", "boxed", False, 7)


def test_the_last_number(predict: Predict) -> None:
    for completion, expected in [
        ("He earns $1,234.50.", "$1,234.50"),
        ("It is -4", "-4"),
        ("5–3", "3"),
        ("20% off", "20%"),
        ("takes 4 4/9 hours", "4 4/9"),
        ("pi is 3.14159", "3.14159"),
        ("agent XDY2K", None),
        ("none", None),
    ]:
        found = extract(
            predict("a", None, completion=completion, finish_reason="length"), ("last_number",), scorer("number")
        )
        assert (found and found.text) == expected
