"""Stop strings: wherever a text is divided, it ends before the first of them that is complete."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunix_rt.inference.stops import StopStrings

SIGNS = st.text("ab;", max_size=24)
STOPS = st.lists(st.text("ab;", min_size=1, max_size=4), max_size=3)


def expected(text: str, stops: list[str]) -> tuple[str, str | None]:
    """By definition: the shortest beginning that ends with a stop string; of several, the longest is cut off."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(st.lists(SIGNS, max_size=6), STOPS)
def test_any_division_gives_the_same_text(pieces: list[str], stops: list[str]) -> None:
    watch = StopStrings(stops)
    shown = [watch.add(piece) for piece in pieces] + [watch.end()]
    assert ("".join(shown), watch.hit) == expected("".join(pieces), stops)


@given(st.lists(SIGNS, max_size=6), STOPS)
def test_what_is_certain_is_shown_at_once(pieces: list[str], stops: list[str]) -> None:
    """Held back is only what some continuation would cut off."""
    watch, said, text = StopStrings(stops), "", ""
    for piece in pieces:
        said, text = said + watch.add(piece), text + piece
        held = text[len(said) :]
        if watch.hit is None:
            assert not held or any(stop.startswith(held) and stop != held for stop in stops)


def test_nothing_follows_a_stop_string() -> None:
    watch = StopStrings(["END"])
    assert [watch.add(piece) for piece in ("12E", "N", "D34", "56")] == ["12", "", "", ""]
    assert (watch.end(), watch.hit) == ("", "END")
