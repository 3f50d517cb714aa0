"""A package with entry points of the group `tunix_rt.scorers`, installed as far as Python can tell."""

from __future__ import annotations

from pathlib import Path


def install(place: Path, **scorers: str) -> None:
    """Put `toy_scorer.py` and a distribution with these entry points (name → MODULE:CLASS) into a folder of modules."""
    own = Path(__file__).with_name("toy_scorer.py")
    (place / "toy_scorer.py").write_text(own.read_text())
    metadata = place / "toy_scorers-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-scorers\nVersion: 1.0\n")
    points = "\n".join(f"{name} = {value}" for name, value in scorers.items())
    (metadata / "entry_points.txt").write_text(f"[tunix_rt.scorers]\n{points}\n")
