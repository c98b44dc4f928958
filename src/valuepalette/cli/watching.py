"""The command that looks at what a gateway served."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valuepalette.cli.shared import COMMON, STUDY, Common, app, fail, named, open_study

if TYPE_CHECKING:
    from valuepalette.monitoring import Monitoring
    from valuepalette.study import Study

__all__ = ["monitor"]

_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


@app.command(sort_key=13)
def monitor(
    study: Path = STUDY,
    /,
    *,
    palette: tuple[str, ...] = (),
    since: str | None = None,
    traffic: Path | None = None,
    write: bool = False,
    check: bool = False,
    common: Common = COMMON,
) -> int:
    """Look at what a gateway served: is every target still met, has the base moved, what would today's weights be?

    A gateway keeps its traffic where the study says record = true under [monitor]. Look as often as you like: the
    intervals hold at all times at once.

    Parameters
    ----------
    study
        The study's file, study.toml where none is named.
    palette
        A palette of the study; may be given several times. All that were served where none is named.
    since
        Only what was served since then: a time such as 2026-11-24T12:00, or 7d, 12h or 30m ago.
    traffic
        The folder of the traffic; that of the study's run where not given.
    write
        Write today's solutions beside the served ones, never over them, for you to apply.
    check
        Exit with 1 where a target is missed or the base has moved.
    """
    from dataclasses import replace

    from valuepalette.monitoring import monitor
    from valuepalette.traffic import Traffic

    run = open_study(study)
    wanted = named(run, palette)
    pilot, told = run.pilot(), run.settings.monitor
    served = Traffic.read(
        run.folder / "traffic" if traffic is None else traffic,
        pilot.metadata,
        since=None if since is None else _moment(since, datetime.now(UTC)),
    )
    settings: dict[str, Any] = {
        name: told[name] for name in ("confidence", "tolerance", "window") if name in told
    }
    settings["weighting"] = run.settings.solve.get("weighting", "prompts")
    found = monitor(served, pilot, **settings)
    found = replace(found, served=tuple(each for each in found.served if each.palette in wanted))
    unserved = [name for name in palette if name not in {each.palette for each in found.served}]
    if unserved:
        raise ValueError(f"palette must be one that was served in this time, got {unserved[0]!r}")
    written = _write(run, found) if write else {}
    text = "\n".join([str(found), *(f"{name}: written to {path}" for name, path in written.items())])
    common.say(text, {**found.to_dict(), "written": {name: str(path) for name, path in written.items()}})
    if check and not found.well:
        missed = [f"{each.palette} {name}" for each in found.served for name in each.missed]
        return fail(
            "; ".join([*(f"missed: {one}" for one in missed), *(f"moved: {one}" for one in found.moved)])
        )
    return 0


def _write(run: Study, found: Monitoring) -> dict[str, Path]:
    """Today's solutions that can be had, each under a name that says what it holds, so that none is ever replaced."""
    from valuepalette.dual import Status
    from valuepalette.traffic import solution_id

    folder = run.folder / "solutions" / "from-traffic"
    written: dict[str, Path] = {}
    for each in found.served:
        if each.today is not None and each.today.status in (Status.OPTIMAL, Status.BOUNDARY):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{each.palette}-{solution_id(each.today)}.json"
            each.today.save(path)
            written[each.palette] = path
    return written


def _moment(text: str, now: datetime) -> float:
    """Seconds since 1970. A time without a zone is local."""
    try:
        if ago := re.fullmatch(r"(\d+)([dhm])", text):
            return (now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).timestamp()
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(
            f"--since must be a time such as 2026-11-24T12:00, or 7d, 12h or 30m, got {text!r}"
        ) from None
