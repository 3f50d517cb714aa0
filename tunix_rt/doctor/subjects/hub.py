"""The Hugging Face hub: logged in, or kept off the network? The token itself is never shown."""

from __future__ import annotations

import os

from tunix_rt.doctor.finding import Finding, Place

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


def findings(place: Place) -> list[Finding]:
    """The login, and the variables that keep it off the network if any is set."""
    from huggingface_hub import get_token

    set_ = [name for name in OFFLINE if os.environ.get(name, "0").upper() not in ("", "0", "FALSE", "OFF", "NO")]
    login = Finding("hub", "works", "logged in, for gated models")
    if get_token() is None:
        login = Finding("hub", "absent", "not logged in; only gated models and uploads need it", "hf auth login")
    if not set_:
        return [login]
    what = f"{', '.join(set_)} set: only files in its cache are used"
    return [login, Finding("hub's network", "absent", what, f"unset {' '.join(set_)}")]
