"""The commands that show: the studio."""

from __future__ import annotations

from pathlib import Path

from valuepalette.cli.shared import app

__all__ = ["studio"]


@app.command(sort_key=12)
def studio(
    source: Path | None = None, /, *, port: int = 0, no_browser: bool = False, debug: bool = False
) -> None:
    """Open a live page on which a palette is found by moving sliders, on this machine alone.

    Parameters
    ----------
    source
        A study, the folder of its run, or a scored pilot; the packaged example where none is named.
    port
        Where to listen; any that is free where none is named.
    no_browser
        Say where the page is, and leave opening it to you.
    debug
        Show the traceback of an error.
    """
    from valuepalette.studio.running import run

    run(source, port=port, browser=not no_browser, say=lambda line: print(line, flush=True))
