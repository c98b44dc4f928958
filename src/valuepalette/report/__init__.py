"""The report: one HTML file that says what a run asked, what it got, and how sure that is.

    from valuepalette.report import gather_report, render_report

    report = gather_report("study.toml")
    html = render_report(report)        # or report.to_dict(), the same numbers

`gathering` reads the files of a run, `content` is what there is to say, `page` writes it down.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from valuepalette.folders import replace_file
from valuepalette.report.content import Report
from valuepalette.report.gathering import gather_report
from valuepalette.report.locating import PAGE
from valuepalette.report.page import render_report

__all__ = ["Report", "gather_report", "render_report", "write_report"]


def write_report(
    source: str | Path, path: str | Path | None = None, palettes: Sequence[str] = ()
) -> tuple[Report, Path]:
    """Writes the report of a run, `source` being its study's file or its folder, and returns it with where it is.

    path      of the page; None puts `report.html` into the run's folder
    palettes  those to tell of; all where none is named

    The same run gives the same page, byte for byte. Raises as `gather_report` does.
    """
    report = gather_report(source, palettes)
    to = Path(report.folder) / PAGE if path is None else Path(path)
    text = render_report(report)
    to.parent.mkdir(parents=True, exist_ok=True)
    replace_file(to, lambda beside: beside.write_text(text, encoding="utf-8"))
    return report, to
