"""Git: the commit that runs record."""

from __future__ import annotations

import shutil

from tunix_rt.doctor.finding import Finding, Place, output


def findings(place: Place) -> list[Finding]:
    """One line. Without a repository, runs record the code by its hash alone."""
    if shutil.which("git") is None:
        return [Finding("git", "absent", "not installed; runs then record no commit")]
    try:
        commit = output(["git", "rev-parse", "--short", "HEAD"], place.seconds).strip()
        changed = len(output(["git", "status", "--porcelain"], place.seconds).splitlines())
    except (OSError, RuntimeError):
        return [Finding("git", "absent", "no commit here; runs then record none", "git init")]
    dirty = f", and {changed:,} files differ from it; runs record the difference" if changed else ""
    return [Finding("git", "works", f"commit {commit}{dirty}")]
