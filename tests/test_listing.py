"""What can be measured, as `valuepalette values` says it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from valuepalette.rewards.listing import list_rewards, listing
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


def test_what_a_server_needs_is_missing_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "valuepalette.rewards.listing.find_spec", lambda name: None if name == "httpx" else name
    )
    missing = {entry.reward: entry.missing for entry in list_rewards()}
    assert missing["vllm"] == missing["judge"] == missing["endpoint"] == 'pip install "valuepalette[remote]"'
    assert missing["classifier"] is None
