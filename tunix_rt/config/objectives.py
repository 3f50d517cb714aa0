"""The objectives that a config may name: each module of `tunix_rt/objectives/` with an `OBJECTIVE`, listed nowhere."""

from __future__ import annotations

from typing import Annotated, Any, Union

from pydantic import Discriminator

from tunix_rt.config.plugins import sections_in

ObjectiveConfig: Any = Annotated[Union[sections_in("tunix_rt.objectives", "OBJECTIVE")], Discriminator("kind")]  # noqa: UP007 (made at run time)
"""Any of them, by its `kind`."""
