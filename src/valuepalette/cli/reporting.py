"""The command that tells of a run."""

from __future__ import annotations

from pathlib import Path

from valuepalette.cli.shared import COMMON, STUDY, Common, app

__all__ = ["report"]


@app.command(sort_key=11.5)
def report(
    source: Path = STUDY,
    /,
    *,
    palette: tuple[str, ...] = (),
    out: Path | None = None,
    common: Common = COMMON,
) -> None:
    """Write one HTML page that tells of a run: asked, verdict and proof, got, answers, and how to repeat it.

    It tells what there is, and names what is missing with the command that makes it. Nothing is sampled or solved, and
    the page needs no network.

    Parameters
    ----------
    source
        The study's file, study.toml where none is named; or the folder of a run.
    palette
        A palette to tell of; may be given several times. All of them where none is named.
    out
        Where the page goes; report.html in the run's folder where not given.
    """
    from valuepalette.report import write_report

    told, path = write_report(source, out, palette)
    missing = [f"not there yet: {one.what} {one.command}".strip() for one in told.all_missing]
    common.say("\n".join([f"written to {path}", *missing]), {"path": str(path), **told.to_dict()})
