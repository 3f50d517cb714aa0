"""One gate: a result that must not be worse than an earlier one."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Lt

from tunix_rt.config.section import Execution, Text, section


@section
class GateConfig:
    """What is compared with what, and how much worse it may be."""

    metric: Execution[Text] = "accuracy"
    """A number of each item: accuracy, stop_rate, scores.NAME, … (`compare --help`)."""
    against: Execution[Text]
    """A run (a name, a prefix or a path), or a registered model: models:/NAME@ALIAS or models:/NAME/VERSION."""
    must_not_drop_by: Execution[Annotated[float, Ge(0)]]
    """The largest drop that is accepted: 0.01 is one point of a rate."""
    confidence: Execution[Annotated[float, Gt(0.5), Lt(1)]] = 0.95
    """The gate passes if the drop is smaller with this confidence (the bound of a one-sided interval)."""
