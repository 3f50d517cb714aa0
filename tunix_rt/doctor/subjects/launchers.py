"""SLURM's programs, where sweeps may start their members."""

from __future__ import annotations

import shutil

from tunix_rt.doctor.finding import Finding, Place, output


def findings(place: Place) -> list[Finding]:
    """One line; the launchers' packages are among the extras."""
    if shutil.which("sbatch") is None:
        return [Finding("SLURM", "absent", "no sbatch here; sweeps run on this machine, or by another launcher")]
    try:
        return [Finding("SLURM", "works", output(["sbatch", "--version"], place.seconds).strip())]
    except (OSError, RuntimeError) as error:
        return [Finding("SLURM", "broken", f"sbatch: {error}", "sbatch --version")]
