"""What the studio looks at: the packaged example, a pilot's file, a study, or the folder that a study's run left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from valuepalette.example import example_pilot
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot
from valuepalette.study import Study

__all__ = ["Opened", "open_source"]


@dataclass(frozen=True)
class Opened:
    """A pilot, and what its study says of it.

    name      for the head of the page
    code      that reads the pilot in Python
    palettes  of the study, by name
    solve     what `solve` is told besides: candidates, mode, weighting
    seed      of the run
    checks    values that are measured and never asked for
    model     the name under which a gateway serves the study
    port      of that gateway
    """

    pilot: Pilot
    name: str
    code: str
    palettes: Mapping[str, Palette] = field(default_factory=dict)
    solve: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    checks: tuple[str, ...] = ()
    model: str = "MODEL"
    port: int = 8000


def open_source(path: Path | None = None) -> Opened:
    """Opens `study.toml`, a folder of a run, or a pilot's file; the packaged example where there is no path.

    ValueError of one line where there is no scored pilot.
    """
    if path is None:
        checks = ("sentiment", "toxicity")
        return Opened(example_pilot(), "the packaged example", "vp.example_pilot()", checks=checks)
    if path.suffix == ".toml":
        study = Study.read(path)
        pilot, settings = study.pilot(), study.settings
        return Opened(
            pilot,
            path.name if path.parent.name == "" else f"{path.parent.name}/{path.name}",
            f"vp.Study.read({str(path)!r}).pilot()",
            settings.palettes,
            settings.solve,
            settings.seed,
            tuple(study.checks(pilot)),
            settings.serve.get("name", settings.model),
            settings.serve.get("port", 8000),
        )
    if not path.exists():
        raise ValueError(
            f"{path} does not exist; name a study.toml, the folder of its run, or a pilot's file"
        )
    run = path / "pilot" if (path / "pilot").is_dir() else path
    pilot = Pilot.read(run)
    model = str(pilot.metadata.model.get("model", "MODEL"))
    code = f"vp.Pilot.read({str(run)!r})"
    return Opened(_readable(pilot, path), path.name or str(path), code, model=model)


def _readable(pilot: Pilot, path: Path) -> Pilot:
    if not pilot.values:
        raise ValueError(f"{path} holds no values: score it first")
    return pilot
