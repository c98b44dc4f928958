"""Pairwise reward models: a tiny model learns a rule that can be learned, and scores by it afterwards."""

from __future__ import annotations

import json
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from helpers import SHARED, killed_while_training, needs_shared
from tiny import save_tiny
from valuepalette.rewards.checking import checked_score
from valuepalette.rewards.learning.measuring import share_won
from valuepalette.rewards.learning.pairs import train_reward, weighed_pairs
from valuepalette.rewards.learning.reading import held_out_rows, read_rankings
from valuepalette.rewards.opening import open_reward

absent = [name for name in ("torch", "trl", "peft", "datasets", "accelerate") if find_spec(name) is None]
needs_training = pytest.mark.skipif(bool(absent), reason=f"not installed: {', '.join(absent)}")
slow_setup = {"epochs": 3, "learning_rate": 3e-3, "batch": 16, "quiet": True}


def preferences(rows: int = 160) -> pa.Table:
    """The answer that ends in `!` is preferred to the one that ends in `?`; both are of the same length."""
    rng = np.random.default_rng(0)
    letters = list("abcdefgh")
    said = ["".join(rng.choice(letters, rng.integers(3, 9))) for _ in range(2 * rows)]
    return pa.table(
        {
            "prompt": [f"Say {row}" for row in range(rows)],
            "chosen": [f"<think>?</think> {text}!" for text in said[:rows]],
            "rejected": [f"{text}?" for text in said[rows:]],
        }
    )


@pytest.mark.models
@needs_training
@pytest.mark.parametrize(("chat", "lora"), [(True, None), (False, 4)])
def test_what_is_learned_is_what_scores(chat: bool, lora: int | None, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", chat=chat)
    table = preferences()
    found = train_reward(
        table, tmp_path / "reward", model=str(base), name="cheer", lora=lora, held_out=0.25, **slow_setup
    )
    card = found.card
    quality = card["aspects"][0]["quality"]
    assert quality["pairs"] == card["data"]["held out"] == 40
    share, lower, upper = quality["accuracy"]
    assert share > 0.9
    assert lower < share <= upper <= 1
    assert card["put"]["format"] == ("chat" if chat else "text")
    assert card["training"]["steps"] == 3 * 8  # 120 pairs, 16 to a step
    line = {"reward": "reward_model", "model": str(tmp_path / "reward")}
    reward = open_reward("cheer", line)
    assert reward.columns[0].name == "cheer"
    assert reward.reads == ("conversation" if chat else "last turn and answer")
    rankings = read_rankings(table)
    out = held_out_rows(rankings.groups, 0.25, np.random.default_rng(0))
    rows = np.flatnonzero(out)
    sides = [
        checked_score(
            reward, "v", [rankings.prompts[r] for r in rows], [rankings.answers[r][i] for r in rows]
        )
        for i in (0, 1)
    ]
    assert share_won((sides[0] - sides[1])[:, 0]).mean() == pytest.approx(share, abs=5e-4)
    assert "accuracy" in found.quality["cheer"]
    assert not list((tmp_path / "reward").glob("*adapter*"))
    told = open_reward("v", {**line, "format": "text", "template": "{prompt}: {answer}"})
    assert told.version != reward.version


def test_a_list_weighs_as_much_as_another_and_its_pairs_the_same() -> None:
    sizes = [2, 3, 4, 3]
    counts: Counter[tuple[int, int, int]] = Counter()
    for seed in range(300):
        drawn = weighed_pairs(sizes, np.array([0, 1, 2]), np.random.default_rng(seed))
        assert Counter(row for row, _, _ in drawn) == {0: 6, 1: 6, 2: 6}
        assert all(best < other < sizes[row] for row, best, other in drawn)
        counts.update(drawn)
    assert counts[0, 0, 1] == 1800
    assert {counts[1, i, j] for i, j in ((0, 1), (0, 2), (1, 2))} == {600}
    assert {counts[2, i, j] for i in range(4) for j in range(i + 1, 4)} == {300}
    uneven: Counter[tuple[int, int, int]] = Counter()
    for seed in range(900):  # 10 pairs over 3: three each, and one once more
        uneven.update(weighed_pairs([3, 5], np.array([0, 1]), np.random.default_rng(seed)))
    assert [uneven[0, i, j] / 900 for i, j in ((0, 1), (0, 2), (1, 2))] == pytest.approx(
        [10 / 3] * 3, abs=0.05
    )


@pytest.mark.models
@needs_training
def test_what_cannot_be_trained_is_refused_in_one_line(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base")
    table = preferences(8)
    for options, said in (
        ({"lora": 0}, "lora must be a rank, 1 or more, or None"),
        ({"settings": {"learning_rate": 1}}, "settings: learning_rate is said by learning_rate here"),
        ({"format": "pair"}, "format must be 'chat' or 'text'; got 'pair'"),
        ({"format": "chat"}, "has no chat template"),
        ({"template": "{prompt}"}, "must contain {answer}"),
        ({"held_out": 0}, "held_out must be a share"),
    ):
        with pytest.raises(ValueError, match=said):
            train_reward(table, tmp_path / "r", model=str(base), quiet=True, **options)
    assert not (tmp_path / "r" / "card.json").exists()


@pytest.mark.models
@needs_training
@needs_shared
@pytest.mark.slow
def test_it_learns_from_public_preferences(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    base = save_tiny(tmp_path / "base")
    table = pq.read_table(SHARED / "hh-harmless-base-test.parquet").slice(0, 400)
    found = train_reward(
        table,
        tmp_path / "reward",
        model=str(base),
        lora=None,
        max_tokens=200,
        name="harmlessness",
        quiet=True,
    )
    quality: dict[str, Any] = json.loads((tmp_path / "reward" / "card.json").read_text())["aspects"][0][
        "quality"
    ]
    assert quality == found.card["aspects"][0]["quality"]
    assert quality["pairs"] == found.card["data"]["held out"]
    # A random tiny model learns length at best: it is told beside, so that nobody is deceived.
    assert "accuracy of the shorter answer" in quality
    assert 0.3 < quality["accuracy"][0] < 0.75


SCRIPT = """
import sys
from test_pairs import preferences, slow_setup
from valuepalette.rewards.learning.pairs import train_reward

train_reward(preferences(), sys.argv[2], model=sys.argv[1], lora=4, save_every=2, **slow_setup)
"""


@pytest.mark.slow
@pytest.mark.models
@needs_training
def test_a_killed_training_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    base, folder = save_tiny(tmp_path / "base"), tmp_path / "killed"
    options: dict[str, Any] = {**slow_setup, "model": str(base), "lora": 4, "save_every": 2}
    whole = train_reward(preferences(), tmp_path / "whole", **options)
    killed_while_training(SCRIPT, base, folder, folder=folder)
    assert not (folder / "card.json").exists()
    done = max(int(mark.parent.name.rpartition("-")[2]) for mark in folder.glob("checkpoints/*/whole"))
    assert 0 < done < 27
    said = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()[:done]]
    again = train_reward(preferences(), folder, **options)
    assert again.card == whole.card
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 28))
    assert rows[:done] == said, "what was trained before is not trained again"
    weights = [load_file(at / "model.safetensors") for at in (folder, tmp_path / "whole")]
    for name, entries in weights[1].items():
        np.testing.assert_allclose(weights[0][name], entries, atol=1e-6)
    assert not (folder / "checkpoints").exists()
    # Called once more it gives what is there; told otherwise it says what differs.
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert train_reward(preferences(), folder, **options).card == whole.card
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match=r"training\.lora: 4 -> 2") as refused:
        train_reward(preferences(), folder, **{**options, "lora": 2})
    assert "\n" not in str(refused.value)
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match="holds a learned reward already"):
        train_reward(preferences(), folder, **options)
