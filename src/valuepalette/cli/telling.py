"""The commands that serve, and that say what there is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from valuepalette.cli.shared import (
    COMMON,
    STUDY,
    Common,
    app,
    open_study,
)

if TYPE_CHECKING:
    pass

__all__ = [
    "doctor",
    "serve",
    "values",
]


@app.command(sort_key=12)
def serve(
    study: Path = STUDY, /, *, host: str | None = None, port: int | None = None, debug: bool = False
) -> None:
    """Serve a study's palettes behind OpenAI's protocol: the model's name carries the palette.

    The key that clients must bring is in the environment, VALUEPALETTE_KEY unless the study names another.

    Parameters
    ----------
    study
        The study's file, study.toml where none is named.
    host
        Where to listen; the study's, else 127.0.0.1.
    port
        The study's, else 8000.
    debug
        Show the traceback of an error.
    """
    from valuepalette.server.running import serve

    serve(open_study(study), host=host, port=port)


@app.command(sort_key=14)
def values(source: Path | None = None, /, *, common: Common = COMMON) -> None:
    """List the values that can be measured, and how each is written in a study.

    Parameters
    ----------
    source
        A folder of rewards learned from data, or a study that names some: those alone, with their quality.
    """
    from dataclasses import asdict

    from valuepalette.rewards.listing import list_learned, list_rewards, listing

    found = list_rewards() if source is None else list_learned(source)
    common.say(listing(found), {"values": [asdict(entry) for entry in found]})


@app.command(sort_key=15)
def doctor(*, common: Common = COMMON) -> None:
    """Say what is installed, what is missing, and the command it comes with."""
    from dataclasses import asdict

    from valuepalette.doctor import examine, report

    findings = examine()
    common.say(report(findings), {"packages": [{**asdict(found), "fits": found.fits} for found in findings]})
