"""What the commands share: the app, what every command takes, palettes one by one, and how things are said."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from valuepalette.study import Study

__all__ = [
    "COMMON",
    "STUDY",
    "Common",
    "app",
    "each",
    "fail",
    "is_study",
    "left_out",
    "named",
    "open_study",
    "refuse",
    "titled",
]

app = App(
    name="valuepalette",
    help="Ask a language model for levels of several values at once, and get the weights that have them.",
    version=lambda: f"valuepalette {version('valuepalette')}",
    default_parameter=Parameter(show_default=False, negative=()),
    suppress_keyboard_interrupt=False,
)


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """What every command takes."""

    json: bool = False
    """Print one line of JSON instead of text."""
    debug: bool = False
    """Show the traceback of an error."""

    def say(self, text: str, content: Mapping[str, Any]) -> None:
        """Prints the text, or with `json` the content as one line."""
        if self.json or text:
            print(json.dumps(content, ensure_ascii=False) if self.json else text)


COMMON = Common()
STUDY = Path("study.toml")


def open_study(path: Path) -> Study:
    """A study from its file."""
    from valuepalette.study import Study

    return Study.read(path)


def is_study(path: Path) -> bool:
    """Whether a source is a study's file, rather than a pilot or answers."""
    return path.suffix == ".toml"


def named(run: Study, palettes: Sequence[str]) -> Sequence[str]:
    """The palettes that were named, all of the study's where none was."""
    if not run.palettes:
        raise ValueError(f"{run.settings.path}: has no palette; add one as [palettes.NAME]")
    for name in palettes:
        if name not in run.palettes:
            raise ValueError(f"--palette must be one of {', '.join(run.palettes)}, got {name!r}")
    return palettes or run.palettes


def each(names: Iterable[str], impossible: list[str], step: Any) -> Iterable[tuple[str, Any]]:
    """A step for each palette; one that cannot be had is put aside and does not stop the others."""
    from valuepalette.solution import Infeasible

    for name in names:
        try:
            yield name, step(name)
        except Infeasible:
            impossible.append(name)


def refuse(what: str, options: Mapping[str, object], where: str) -> None:
    """Refuses options that belong to another kind of source."""
    given = [name for name, entry in options.items() if entry not in (None, ())]
    if given:
        raise ValueError(f"{given[0]} goes with {where}, got {what}")


def titled(name: str, text: str, path: Path | None) -> str:
    """A text under its palette's name, and where it was written."""
    lines = [f"{name}:" if name else "", text, f"written to {path}" if path else ""]
    return "\n".join(line for line in lines if line)


def left_out(impossible: Sequence[str]) -> int:
    """The exit code: 1 where palettes could not be had, which are named."""
    if not impossible:
        return 0
    return fail(f"cannot be had: {', '.join(impossible)}; `valuepalette solve` says why")


def fail(message: str) -> int:
    """One line on standard error, and the exit code 1."""
    print(f"valuepalette: {' '.join(message.split())}", file=sys.stderr)
    return 1
