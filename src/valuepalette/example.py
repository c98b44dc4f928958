"""A pilot that ships with the package, so that solving and learning need no model at all."""

from __future__ import annotations

from importlib.resources import as_file, files

from valuepalette.pilot import Pilot

__all__ = ["example_pilot"]


def example_pilot() -> Pilot:
    """Candidates of the embedded model on everyday prompts, scored by the embedded values."""
    data = files("valuepalette") / "data" / "example.parquet"
    if not data.is_file():
        raise FileNotFoundError("the example pilot is not in this build of valuepalette")
    with as_file(data) as path:
        return Pilot.read(path)
