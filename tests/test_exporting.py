"""Rows for other trainers: the pairs' law, the layouts, and that DPO and SFT on them move the levels as asked."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from valuepalette.exporting import export_pairs, export_sft, read_pairs, write_rows
from valuepalette.pilot import Pilot, PilotMetadata
from valuepalette.solution import Solution
from valuepalette.solving import solve

K = 16


@pytest.fixture
def pilot() -> Pilot:
    rng = np.random.default_rng(0)
    humor = rng.normal(size=200 * K)
    return Pilot.from_arrays(
        {"humor": humor},
        prompt_id=np.repeat(np.arange(200), K),
        prompts=np.repeat([f"Say {i}." for i in range(200)], K).tolist(),
        responses=[repr(number) for number in humor.tolist()],
    )


@pytest.fixture
def solution(pilot: Pilot) -> Solution:
    return Solution.from_weights(pilot, {"humor": 1.0}, "limit")


def test_accepted_answers_follow_the_tilted_law(pilot: Pilot, solution: Solution) -> None:
    rows = export_pairs(pilot, solution, pairs=1)
    assert len(rows) == 200
    accepted = np.array([[float(row["chosen"]), float(row["rejected"])] for row in rows])
    # Of 16 candidates two are accepted, so nearly as p_λ, whose level is 1, would draw them.
    assert accepted.mean() == pytest.approx(1, abs=0.15)
    np.testing.assert_allclose(accepted, [row["scores"] for row in rows])


@pytest.mark.parametrize("beta", [0.1, 1.0, 5.0])
def test_the_better_one_is_drawn_as_bradley_and_terry_say(
    pilot: Pilot, solution: Solution, beta: float
) -> None:
    rows = [row for seed in range(10) for row in export_pairs(pilot, solution, beta=beta, seed=seed)]
    gaps = np.array([row["scores"][0] - row["scores"][1] for row in rows])
    chance = 1 / (1 + np.exp(-beta * np.abs(gaps)))
    error = np.sqrt((chance * (1 - chance)).sum()) / len(gaps)
    assert np.mean(gaps > 0) == pytest.approx(chance.mean(), abs=4 * error)
    sure = export_pairs(pilot, solution, beta=beta, labels="score")
    assert all(row["scores"][0] > row["scores"][1] for row in sure)


def test_rows_for_sft_are_the_decoders_answers(pilot: Pilot) -> None:
    solution = solve(pilot, {"humor": "reach 50%"})
    rows = [row for seed in range(20) for row in export_sft(pilot, solution, seed=seed)]
    got = np.mean([float(row["completion"]) for row in rows])
    assert got == pytest.approx(solution.levels["humor"], abs=0.05)
    assert len(export_sft(pilot, solution, answers=3)) == 600


def chatty(template: str) -> Pilot:
    return Pilot.from_arrays(
        {"humor": [0.0, 1.0, 0.5, 0.2]},
        prompts=["Hi."] * 4,
        responses=["No.", "Ha!", "So?", "Hm."],
        metadata=PilotMetadata({"model": "m", "template": template}, {}, "Be kind.", 0, {}),
    )


def test_layouts() -> None:
    system = {"role": "system", "content": "Be kind."}
    user = {"role": "user", "content": "Hi."}
    pilot = chatty("sha256:1")
    solution = Solution.from_weights(pilot, {"humor": 50.0}, "limit")
    (row,) = export_pairs(pilot, solution, pairs=1, labels="score")
    assert row["prompt"] == [system, user]
    assert row["chosen"] == [{"role": "assistant", "content": "Ha!"}]
    (plain,) = export_pairs(chatty("none"), solution, pairs=1, labels="score")
    assert (plain["prompt"], plain["chosen"]) == ("Hi.", "Ha!")
    (other,) = export_pairs(pilot, solution, pairs=1, labels="score", layout="distilabel")
    assert (other["system_prompt"], other["instruction"]) == ("Be kind.", "Hi.")
    assert other["generations"][0] == "Ha!"
    assert other["ratings"] == [1.0, 0.0]
    own = Solution.from_weights(pilot, {"humor": 50.0})
    (answer,) = export_sft(pilot, own)
    assert answer == {"prompt": [system, user], "completion": [{"role": "assistant", "content": "Ha!"}]}
    (answer,) = export_sft(pilot, own, layout="distilabel")
    assert answer["generation"] == "Ha!"
    said = Pilot.from_arrays(
        {"humor": [0.0, 1.0, 0.5, 0.2]}, prompts=[[user]] * 4, responses=["No.", "Ha!", "So?", "Hm."]
    )
    (chat,) = export_pairs(said, solution, pairs=1, layout="distilabel")
    assert chat["messages"] == [user]


def test_files(pilot: Pilot, solution: Solution, tmp_path: Path) -> None:
    rows = export_pairs(pilot, solution)
    write_rows(rows, tmp_path / "deep" / "pairs.jsonl")
    lines = (tmp_path / "deep" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows
    write_rows(rows, tmp_path / "pairs.parquet")
    assert pq.read_table(tmp_path / "pairs.parquet").to_pylist() == rows
    with pytest.raises(ValueError, match=r"end in \.jsonl or \.parquet"):
        write_rows(rows, tmp_path / "pairs.csv")
    with pytest.raises(ValueError, match="no row to write"):
        write_rows([], tmp_path / "pairs.jsonl")


def test_refusals(pilot: Pilot, solution: Solution) -> None:
    with pytest.raises(ValueError, match='need candidates="limit"'):
        export_pairs(pilot, solve(pilot, {"humor": "+0.1"}))
    with pytest.raises(ValueError, match="the pilot has K = 16, the solution is for 'limit'"):
        export_sft(pilot, solution)
    with pytest.raises(ValueError, match="layout must be one of trl, distilabel"):
        export_pairs(pilot, solution, layout="csv")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pairs must be a whole number"):
        export_pairs(pilot, solution, pairs=0)
    with pytest.raises(ValueError, match="beta must be a positive number"):
        export_pairs(pilot, solution, beta=0)


@pytest.mark.models
@pytest.mark.extra("trl")
@pytest.mark.parametrize("labels", ["drawn", "score"])
def test_dpo_on_exported_pairs_moves_the_levels_the_right_way(tmp_path: Path, labels: Any) -> None:
    pytest.importorskip("trl")
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    import enumerable as listed
    from valuepalette.training.running import calm

    model = listed.save(tmp_path / "model")
    pilot = listed.pilot(model, tmp_path / "pilot", 64)
    solution = solve(pilot, {"as": "reach 40%", "variety": "<= base-0.2"}, "limit")
    pairs = [
        row
        for seed in range(4)
        for row in export_pairs(pilot, solution, beta=1.0, pairs=16, labels=labels, seed=seed)
    ]
    write_rows(pairs, tmp_path / "pairs.jsonl")
    with calm():
        data = load_dataset(
            "json", data_files=str(tmp_path / "pairs.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
        )
        trainer = DPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(model),
            args=DPOConfig(
                str(tmp_path / "dpo"),
                beta=1.0,
                per_device_train_batch_size=32,
                max_steps=40,
                learning_rate=2e-3,
                use_cpu=True,
                bf16=False,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
                gradient_checkpointing=False,
                logging_steps=1000,
            ),
            train_dataset=data.remove_columns("scores"),
            processing_class=AutoTokenizer.from_pretrained(model),
        )
        trainer.train()
        trainer.save_model(str(tmp_path / "tuned"))
    before, after = listed.Law(model), listed.Law(tmp_path / "tuned")
    assert after.level("as") > before.level("as") + 0.1
    if labels == "drawn":  # which has the optimum that was asked for; "score" knows λᵀf alone
        assert after.level("variety") < before.level("variety") - 0.05
    score = [sum(w * law.level(name) for name, w in solution.weights.items()) for law in (before, after)]
    assert score[1] > score[0]


def test_preferences_of_others_are_written_as_our_own() -> None:
    turns = [{"role": "user", "content": "Hi."}]
    table = pa.table({"prompt": ["Hi.", "Bye."], "ranked": [["a", "b"], ["c", "d", "e"]]})
    plain = read_pairs(table, PilotMetadata())
    assert Counter((row["prompt"], row["chosen"], row["rejected"]) for row in plain) == {
        ("Hi.", "a", "b"): 3,
        ("Bye.", "c", "d"): 1,
        ("Bye.", "c", "e"): 1,
        ("Bye.", "d", "e"): 1,
    }
    model = PilotMetadata(model={"template": "sha256:1"}, system_prompt="Be kind.")
    (row,) = read_pairs(table.slice(0, 1), model)
    assert row == {
        "prompt": [{"role": "system", "content": "Be kind."}, *turns],
        "chosen": [{"role": "assistant", "content": "a"}],
        "rejected": [{"role": "assistant", "content": "b"}],
    }
    # A prompt that is held out is, as a text or as a conversation, the same one.
    assert {row["prompt"] for row in read_pairs(table, PilotMetadata(), without=[turns])} == {"Bye."}
    with pytest.raises(ValueError, match="every pair answers a prompt that is held out"):
        read_pairs(table, PilotMetadata(), without=["Hi.", "Bye."])
    talk = pa.table({"prompt": [turns], "ranked": [["a", "b"]]})
    with pytest.raises(ValueError, match="must be texts for a model without a chat template"):
        read_pairs(talk, PilotMetadata())
