"""The scorers that a config may name: each module of `evaluation/scorers/`, listed nowhere."""

from __future__ import annotations

from typing import Annotated, Any, Union

from pydantic import Discriminator

from tunix_rt.config.plugins import sections_in

ScorerConfig: Any = Annotated[Union[sections_in("tunix_rt.evaluation.scorers", "SCORER")], Discriminator("kind")]  # noqa: UP007 (made at run time)
"""Any of them, told apart by `kind`."""
