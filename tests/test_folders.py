"""Files that are whole or absent, settings that are kept, one writer at a time."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from valuepalette.folders import (
    MANIFEST,
    alone,
    begin,
    differences,
    digest,
    plain,
    read_json,
    replace_file,
    write_json,
)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    replace_file(path, lambda to: to.write_text("old"))

    def fail(to: Path) -> None:
        to.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_file(path, fail)
    assert path.read_text() == "old"
    with alone(tmp_path):
        assert sorted(entry.name for entry in tmp_path.iterdir()) == [".lock", "file.txt"]


def test_json_comes_back_and_other_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(
        path,
        {
            "format": 1,
            "names": ("é", np.int64(3)),
            "array": np.array([1.5]),
            "frozen": MappingProxyType({"a": 1}),
        },
    )
    assert read_json(path, 1) == {"format": 1, "names": ["é", 3], "array": [1.5], "frozen": {"a": 1}}
    with pytest.raises(ValueError, match=r"file\.json must be a JSON object of format 2, got format 1"):
        read_json(path, 2)
    path.write_text('{\n"format": 1,,\n}')
    with pytest.raises(ValueError, match=r"file\.json must be JSON, and is not at line 2: "):
        read_json(path, 1)
    path.write_text("[]")
    with pytest.raises(ValueError, match="got format None"):
        read_json(path, 1)
    with pytest.raises(TypeError, match="got Path"):
        plain(type("Path", (), {})())


def test_settings_are_recorded_once_and_compared_after(tmp_path: Path) -> None:
    begin(tmp_path, {"seed": 0, "sampling": {"stop": ("a",)}}, 1, values={})
    before = (tmp_path / MANIFEST).read_bytes()
    begin(tmp_path, {"seed": 0, "sampling": {"stop": ["a"]}}, 1, values={"anything": 1})
    assert (tmp_path / MANIFEST).read_bytes() == before
    with pytest.raises(ValueError) as refused:
        begin(tmp_path, {"seed": 1, "sampling": {"stop": []}, "new": "x"}, 1)
    assert '(seed: 0 -> 1; sampling.stop: ["a"] -> []; new: null -> "x")' in str(refused.value)
    assert (tmp_path / MANIFEST).read_bytes() == before


def test_differences_see_what_is_gone() -> None:
    assert list(differences({"a": 1, "b": {"c": 2}}, {"a": 1})) == ['b: {"c": 2} -> null']
    assert list(differences({"a": 1}, {"a": 1})) == []


def test_a_second_writer_is_refused_and_the_lock_is_given_back(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with alone(tmp_path), pytest.raises(ValueError, match="another process"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


def test_digests_tell_contents_apart() -> None:
    assert digest(["ab", "c"]) != digest(["a", "bc"])
    assert digest([np.float64(1.5)]) == digest((1.5,))
