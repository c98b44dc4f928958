"""What can be measured, as `valuepalette values` says it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from valuepalette.cli import main
from valuepalette.rewards.listing import list_learned, list_rewards, listing
from valuepalette.rewards.opening import REWARDS


def test_every_reward_is_listed_with_what_it_takes() -> None:
    found = {entry.reward: entry for entry in list_rewards()}
    assert set(found) == set(REWARDS)
    assert found["diversity"].missing is None
    assert "reads" in found["diversity"].options
    assert found["classifier"].required == ("model",)
    assert found["judge"].required == ("rubric", "model")
    assert found["endpoint"].required == ("url",)
    quality = found["embedded:humor"].quality
    assert quality is not None
    assert " held out, " in quality
    assert all(entry.measures for entry in found.values())


def test_the_list_fits_and_warns() -> None:
    entry = next(entry for entry in list_rewards() if entry.reward == "length")
    weak = replace(
        entry, reward="embedded:wit", weak=True, limits="It knows little. " * 10, missing="pip install wit"
    )
    lines = listing([entry, weak]).splitlines()
    assert max(map(len, lines)) <= 100
    assert next(line for line in lines if line.startswith("embedded:wit")).split()[1] == "WEAK:"
    assert any(line.strip() == "missing: pip install wit" for line in lines)
    assert not next(line for line in lines if line.startswith("length")).split()[1].startswith("WEAK")


def head(folder: Path) -> Path:
    """The folder of a head, as training leaves it."""
    folder.mkdir()
    np.savez(folder / "head.npz", weights=np.zeros((1, 4)), intercepts=np.zeros(1))
    quality = {"area": [0.91, 0.88, 0.94], "area of length alone": 0.5, "texts": 1200}
    aspect = {"name": "wit", "kind": "classes", "definition": "that wit is true", "quality": quality}
    encoder = dict.fromkeys(("model", "revision", "dtype", "pooling", "max_tokens", "pinned"))
    card = {"format": 1, "reward": "head", "reads": "answer", "encoder": encoder, "aspects": [aspect]}
    (folder / "card.json").write_text(json.dumps({**card, "data": {"source": "jokes.csv"}}), encoding="utf-8")
    return folder


def test_learned_rewards_are_listed_with_how_good_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = head(tmp_path / "wit")
    study = tmp_path / "study.toml"
    study.write_text(f"[values]\nfun = {{ reward = 'head', model = '{folder}' }}\nlength = 'length'\n")
    for source, name in ((folder, str(folder)), (tmp_path, str(folder)), (study, "fun")):
        (entry,) = list_learned(source)
        assert entry.reward == name
        assert (
            entry.quality == "wit: area 0.91 (0.88 to 0.94), area of length alone 0.50, 1,200 texts held out"
        )
        assert 'reward = "head"' in entry.measures
        assert len(entry.columns) == 1
    assert main(["values", str(study)]) == 0
    assert "area 0.91 (0.88 to 0.94)" in " ".join(capsys.readouterr().out.split())
    assert main(["values", str(study), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["values"][0]["reward"] == "fun"
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(
        ValueError, match=r"must hold or name rewards learned from data, each with its card\.json"
    ):
        list_learned(empty)
    study.write_text("values = [")
    with pytest.raises(ValueError, match="must be a folder or a study's file"):
        list_learned(study)


def test_what_a_server_needs_is_missing_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "valuepalette.rewards.listing.find_spec", lambda name: None if name == "httpx" else name
    )
    missing = {entry.reward: entry.missing for entry in list_rewards()}
    assert missing["vllm"] == missing["judge"] == missing["endpoint"] == 'pip install "valuepalette[remote]"'
    assert missing["classifier"] is None
