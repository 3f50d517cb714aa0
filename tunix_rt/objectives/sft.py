"""`sft`: supervised fine-tuning, the mean negative log-likelihood of the traces' targets, by `dataset.loss_weights`."""

from __future__ import annotations

from typing import ClassVar, Literal

from tunix_rt.config.section import section
from tunix_rt.objectives.interface import Objective


@section
class Sft(Objective):
    """The model learns to write the traces. The batches carry the weights, so nothing has to be computed before."""

    kind: Literal["sft"]
    data: ClassVar[Literal["traces"]] = "traces"


OBJECTIVE = Sft
