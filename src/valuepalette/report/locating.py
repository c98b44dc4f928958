"""The run that a report is about: its folder, its files, and its study where that is at hand."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from valuepalette import collecting
from valuepalette.folders import MANIFEST
from valuepalette.pilot import Pilot
from valuepalette.report.content import File
from valuepalette.settings import Settings, read_settings

__all__ = ["METHODS", "PAGE", "Run", "find_run", "listed_files"]

METHODS = ("decoding", "finetuning", "distilling")
PAGE = "report.html"
_TOLD = ("manifest.json", "pilot", "solutions", "evaluation", "answers")


@dataclass(frozen=True)
class Run:
    """A run folder, and the study that fills it; None where the file is not beside it."""

    folder: Path
    settings: Settings | None

    @property
    def study(self) -> str:
        """The study as a command names it."""
        return shlex.quote("study.toml" if self.settings is None else str(self.settings.path))

    def command(self, step: str, palette: str = "", *more: str) -> str:
        """`valuepalette step study.toml --palette NAME`."""
        chosen = ("--palette", shlex.quote(palette)) if palette else ()
        return " ".join(("valuepalette", step, self.study, *chosen, *more))

    @property
    def palettes(self) -> tuple[str, ...]:
        """Those of the study, then others that the folder has files of."""
        named = () if self.settings is None else tuple(self.settings.palettes)
        found = [*self.folder.glob("solutions/*.json")]
        for method in METHODS:
            found += self.folder.glob(f"evaluation/{method}/*.json")
            found += self.folder.glob(f"answers/{method}/*.parquet")
        return tuple(dict.fromkeys([*named, *sorted(path.stem for path in found)]))

    def sampled(self, name: str) -> bool:
        return collecting.finished(self.folder / name)

    def unscored(self, name: str) -> list[str]:
        """Values that some candidate still lacks; of a study that is not at hand, those that were begun."""
        if self.settings is not None:
            return collecting.unscored(self.folder / name, self.settings.values)
        from valuepalette.folders import read_json

        return collecting.unscored(
            self.folder / name, list(read_json(self.folder / name / MANIFEST, 1)["values"])
        )

    @cached_property
    def pilot(self) -> Pilot | None:
        """None where it is not sampled to its end."""
        return Pilot.read(self.folder / "pilot") if self.sampled("pilot") else None

    @cached_property
    def held_out(self) -> Pilot | None:
        return Pilot.read(self.folder / "held_out") if self.sampled("held_out") else None

    @property
    def holds_out(self) -> bool:
        """Whether prompts are held out, sampled or not."""
        told = self.settings
        if told is not None and (told.held_out is not None or told.held_out_path is not None):
            return True
        return (self.folder / "held_out" / MANIFEST).is_file()

    def is_check(self, value: str, about: Mapping[str, Any]) -> bool:
        """Whether the study calls the reward behind a value a second opinion."""
        return self.settings is not None and about.get("reward", value) in self.settings.checks

    @property
    def text(self) -> str:
        """The study's file, without the passwords that an address may hold."""
        if self.settings is None:
            return ""
        text = self.settings.path.read_text(encoding="utf-8")
        return re.sub(r"(?<=://)[^/@\s\"']+@", "…@", text)


def find_run(source: str | Path) -> Run:
    """The run of a study's file, or of a run folder, whose study is looked for in it and beside it."""
    source = Path(source)
    if source.suffix == ".toml":
        settings = read_settings(source)
        return Run(settings.folder, settings)
    if not source.is_dir() or not any((source / name).exists() for name in _TOLD):
        raise ValueError(
            f"source must be a study's file or a run folder, which holds {', '.join(_TOLD[:-1])} or {_TOLD[-1]}; "
            f"got {source}"
        )
    for path in (source / "study.toml", source.parent / "study.toml"):
        if path.is_file():
            try:
                settings = read_settings(path)
            except ValueError:
                if path.parent == source:
                    raise
                continue  # of another run, perhaps
            if settings.folder.resolve() == source.resolve():
                return Run(source, settings)
    return Run(source, None)


def listed_files(folder: Path) -> tuple[File, ...]:
    """What the folder holds, with digests; parts are counted together, and models are not read."""
    return tuple(_listed(folder))


def _listed(folder: Path) -> Iterator[File]:
    parts: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file() or any(part.startswith(".") for part in name.parts) or name.name == PAGE:
            continue
        models = "models/" if name.parts[0] == "models" else ""
        shards = (
            f"{name.parent.as_posix()}/part-*.parquet"
            if re.fullmatch(r"part-\d+\.parquet", name.name)
            else ""
        )
        parts.setdefault(models or shards or name.as_posix(), []).append(path)
    for name, paths in parts.items():
        digests = [] if name == "models/" else [_digest(path) for path in paths]
        whole = (
            hashlib.sha256("".join(digests).encode()).hexdigest() if len(digests) > 1 else "".join(digests)
        )
        yield File(name, len(paths), sum(path.stat().st_size for path in paths), whole)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
