"""Recorded configs of earlier versions, under today's names."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import config_of
from tunix_rt.config.change import changed, elsewhere, of_today
from tunix_rt.config.identity import plain
from tunix_rt.config.load import check
from tunix_rt.errors import ConfigError

REST: dict[str, Any] = {"steps": "arithmetic", "slices": ["level"], "pass_at": []}


@pytest.mark.parametrize(
    ("answer", "scorer"),
    [("exact", {"kind": "exact"}), ("numeric", {"kind": "number", "relative_tolerance": 0.02})],
)
def test_the_rules_from_before_there_were_scorers(answer: str, scorer: dict[str, Any]) -> None:
    """Prevents: a run that was scored by `answer: numeric` and cannot be looked at any more."""
    then = {"answer": answer, "extract": "last_number", "relative_tolerance": 0.02, **REST}
    recorded = plain(config_of()) | {"evaluation": then}
    now = of_today(recorded)
    assert now["evaluation"] == {"scorers": [scorer], "extract": ["last_number"], **REST}
    assert check(now).evaluation.decisive.kind == scorer["kind"]
    assert recorded["evaluation"] is then and "answer" in then, "the record itself stays as it is"


def test_a_group_below_a_section_is_changed_in_its_place() -> None:
    """Prevents: `predict RUN generation/interventions=…` writing a key with a slash at the top."""
    recorded = plain(config_of(["format=lines"]))
    now = changed(recorded, ["generation/interventions=faithfulness"], "predict")
    assert now["generation"]["interventions"]["kinds"] == ["truncated", "corrupted"]
    assert now.keys() == recorded.keys()
    assert changed(now, ["generation/interventions=none"], "predict") == recorded


def test_the_same_is_run_elsewhere() -> None:
    """Prevents: `reproduce RUN tracking=none` answered with a mistake in a section that nobody had typed."""
    recorded = plain(config_of())
    now = elsewhere(recorded, ["tracking=none", "hardware.threads=1"])
    assert (now["tracking"]["stores"], now["hardware"]["threads"]) == ({}, 1)
    for word in ("seed=1", "optimizer=lion", "run.stop_step=2"):
        with pytest.raises(ConfigError, match="only what changes no result may differ"):
            elsewhere(recorded, [word])
    with pytest.raises(ConfigError, match="experiment: not among what can be changed here: it is that of the run"):
        elsewhere(recorded, ["+experiment=quickstart"])
    for word in ("hardware/mesh=x", "hardware/zzz=x"):  # the one was the default's section, the other a traceback
        with pytest.raises(ConfigError, match="no group of choices"):
            elsewhere(recorded, [word])


def test_what_looks_like_an_interpolation_in_a_record_is_text() -> None:
    """Prevents: a run that cannot be reproduced, since its prompts say `${x}`."""
    recorded = plain(config_of(["run.root='a\\${x}'"]))
    assert recorded["run"]["root"] == "a${x}"
    for root in ("a${x}", r"\${x}", r"\\${x}", "${"):
        recorded["run"]["root"] = root
        now = elsewhere(recorded, ["hardware.threads=2", "run.data=${name}"])
        assert (now["run"]["root"], now["run"]["data"]) == (root, recorded["name"])
