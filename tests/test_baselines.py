"""Baselines against numbers worked out beside them, and a guided model against enumeration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import FakeReward
from valuepalette.baselines.navigation import navigate
from valuepalette.baselines.prompting import system_prompt
from valuepalette.baselines.weighting import palette_weights, simplex_weights
from valuepalette.decoding import choose
from valuepalette.evaluation import evaluate
from valuepalette.pilot import Pilot
from valuepalette.solution import Solution
from valuepalette.solving import solve

K = 6


def candidates(seed: int, prompts: int = 50, first: int = 0) -> Pilot:
    """Two values at odds, and one that stands alone."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(prompts * K, 3))
    values = {"humor": x[:, 0], "tone": 0.8 * x[:, 1] - 0.6 * x[:, 0], "length": 20 + x[:, 2]}
    place = np.tile(np.arange(K), prompts)
    return Pilot.from_arrays(
        values, prompt_id=first + np.repeat(np.arange(prompts), K), columns={"candidate": place}
    )


PILOT, FRESH = candidates(0), candidates(1, first=1000)


def test_random_weights_are_uniform_in_sum_and_on_the_simplex() -> None:
    found = simplex_weights(PILOT, ["humor", "tone"], 200, bound=4.0, seed=1)
    weights = np.array([solution.weights.array for solution in found])
    sums = weights.sum(axis=1)
    assert (weights[:, 2] == 0).all()
    assert (weights >= 0).all()
    assert sums.max() < 4
    assert sums.mean() == pytest.approx(2, abs=4 * 4 / np.sqrt(12 * 200))
    assert (weights[:, 0] / sums).mean() == pytest.approx(0.5, abs=4 / np.sqrt(12 * 200))
    again = simplex_weights(PILOT, ["humor", "tone"], 2, bound=4.0, seed=1)
    assert np.array_equal(again[1].weights.array, weights[1])


def test_weights_of_random_palettes_improve_every_value() -> None:
    found = palette_weights(PILOT, ["humor", "tone"], 10, bound=6.0, seed=2)
    assert len(found.solutions) == 10
    assert found.tried >= found.had >= 10
    for solution in found.solutions:
        assert solution.weights.array.sum() <= 6
        assert solution.gains["humor"] >= -1e-9
        assert solution.gains["tone"] >= -1e-9
    # A value against itself can never have both.
    against = PILOT.with_values({"gravity": -PILOT.array[:, 0]})
    with pytest.raises(ValueError, match=r"bound must leave palettes enough: of 200 drawn, 0 can be had"):
        palette_weights(against, ["humor", "gravity"], 2)


@pytest.mark.parametrize(
    ("values", "count", "bound", "said"),
    [
        ([], 1, 6.0, "values must be a list of different names"),
        (["humor", "humor"], 1, 6.0, "values must be a list of different names"),
        (["wit"], 1, 6.0, "values must be among the pilot's"),
        (["humor"], 0, 6.0, "count must be at least 1, got 0"),
        (["humor"], 1, 0.0, "bound must be positive and finite, got 0"),
    ],
)
def test_what_cannot_be_drawn(values: list[str], count: int, bound: float, said: str) -> None:
    for draw in (simplex_weights, palette_weights):
        with pytest.raises(ValueError, match=said):
            draw(PILOT, values, count, bound=bound)


def test_the_words_of_a_palette() -> None:
    solution = solve(PILOT, {"humor": "reach 30%", "length": "<= 19.9", "tone": "base-0.5"})
    assert system_prompt(solution, {"tone": "cheer"}, before="You are a clerk.") == (
        "You are a clerk. Answer with more humor than you usually would. "
        "Answer with less length than you usually would. Keep cheer as you usually would."
    )


def test_navigation_counts_runs_with_every_value_at_least_as_before() -> None:
    def run(weights: dict[str, float]) -> Any:
        return evaluate(
            choose(FRESH, Solution.from_weights(PILOT, weights)), Solution.from_weights(PILOT, weights)
        )

    both, one = run({"humor": 1.5, "tone": 1.8}), run({"humor": 3.0})
    assert both["humor"].gain > 0
    assert one["tone"].gain < -0.3
    strict = {"humor": 0.0, "tone": 0.0}
    found = navigate([both, one], ["humor", "tone"], bands=strict)
    assert (found.reached, found.runs, found.share) == (1, 2, 0.5)
    assert navigate([both, one], ["humor"], bands=strict).reached == 2
    assert navigate([one], ["tone"], bands={"tone": 9.0}).reached == 1
    assert navigate([both, one], ["humor", "tone"], by="win rate").reached == 1
    # The interval of the run itself is the band: what chance alone put below counts.
    near = replace(one["tone"], gain=-0.1, gain_se=0.06)
    below = replace(near, gain=-0.13)
    for row, reached in ((near, 1), (below, 0)):
        changed = replace(one, rows=tuple(row if each.name == "tone" else each for each in one.rows))
        assert navigate([changed], ["tone"]).reached == reached
    # Wilson's interval for 1 of 2 at 95 %, from its formula.
    assert (found.low, found.high) == pytest.approx((0.0945, 0.9055), abs=1e-4)


def test_navigation_needs_a_base_to_compare_with() -> None:
    table = FRESH.table.drop_columns(["candidate"])
    unmarked = evaluate(Pilot.read(table), Solution.from_weights(PILOT, {"humor": 1.0}))
    with pytest.raises(ValueError, match="runs must compare humor with the base"):
        navigate([unmarked], ["humor"])
    with pytest.raises(ValueError, match="runs must hold at least one"):
        navigate([], ["humor"])


class TestSoups:
    @pytest.fixture(autouse=True)
    def _needs(self) -> None:
        pytest.importorskip("transformers")

    def test_every_number_is_the_weighted_mean(self, tmp_path: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        from tiny import save_tiny
        from valuepalette.baselines.souping import soup

        first = save_tiny(tmp_path / "a")
        model = AutoModelForCausalLM.from_pretrained(first)
        kept = {name: weights.clone() for name, weights in model.state_dict().items()}
        with torch.no_grad():
            for weights in model.parameters():
                weights.add_(0.5)
        # Other files for the same tensors: they are found by their names.
        model.save_pretrained(tmp_path / "b", max_shard_size="20KB")
        out = soup({first: 0.25, tmp_path / "b": 0.75}, tmp_path / "out")
        mixed = AutoModelForCausalLM.from_pretrained(out).state_dict()
        for name, weights in kept.items():
            assert torch.allclose(mixed[name], weights + 0.375, atol=1e-6)
        assert (out / "tokenizer.json").read_bytes() == (first / "tokenizer.json").read_bytes()
        assert not list(out.glob("*.partial"))

    def test_models_that_do_not_match(self, tmp_path: Path) -> None:
        from tiny import save_tiny
        from valuepalette.baselines.souping import soup

        llama, gpt2 = save_tiny(tmp_path / "a"), save_tiny(tmp_path / "b", "gpt2")
        with pytest.raises(ValueError, match="models must have the same tensors"):
            soup({llama: 0.5, gpt2: 0.5}, tmp_path / "out")
        with pytest.raises(ValueError, match=r"shares that sum to 1, got 0\.9"):
            soup({llama: 0.5, gpt2: 0.4}, tmp_path / "out")
        with pytest.raises(ValueError, match="folder must not be one of the models"):
            soup({llama: 1.0}, llama)
        with pytest.raises(ValueError, match="models must be folders with"):
            soup({tmp_path / "none": 1.0}, tmp_path / "out")


class TestGuidance:
    def test_the_first_token_has_the_guided_distribution(self, tmp_path: Path) -> None:
        """log p + λ·r on the likeliest tokens, by the model's own logits."""
        pytest.importorskip("transformers")
        import torch

        from tiny import save_tiny
        from valuepalette.baselines.guiding import guide
        from valuepalette.engines import Sampling
        from valuepalette.engines.loading import load_causal_lm
        from valuepalette.engines.transformers import TransformersEngine

        loaded = load_causal_lm(str(save_tiny(tmp_path)), dtype="float32", device="cpu")
        vowels = FakeReward("vowels", lambda text: sum(text.count(c) for c in "aeiouAEIOU"))
        guided = TransformersEngine(loaded, guide=guide({"vowels": vowels}, {"vowels": 2.0}, top=98))
        plain = TransformersEngine(loaded)
        sampling = Sampling(max_new_tokens=1, top_k=0)
        drawn = [each.text for each in guided.sample(["Hello"], 4000, sampling=sampling, seed=0)[0]]

        ids = torch.tensor([loaded.tokenizer("Hello").input_ids])
        with torch.inference_mode():
            logits = loaded.model(ids).logits[0, -1].double()
        texts = loaded.tokenizer.batch_decode([[token] for token in range(98)])
        pull = torch.tensor([2.0 if text in "aeiouAEIOU" and text else 0.0 for text in texts]).double()
        law = (logits + pull).softmax(-1)
        for token in law.topk(5).indices.tolist():
            share = drawn.count(texts[token]) / len(drawn)
            assert share == pytest.approx(float(law[token]), abs=4 * np.sqrt(0.25 / len(drawn)))
        assert guided.fingerprint["guide"] == "log p + 2·vowels, among the 98 likeliest tokens"
        assert {**plain.fingerprint, "guide": guided.fingerprint["guide"]} == guided.fingerprint

    def test_the_whole_answer_is_steered(self, tmp_path: Path) -> None:
        pytest.importorskip("transformers")
        from tiny import save_tiny
        from valuepalette.baselines.guiding import guide
        from valuepalette.engines import Sampling
        from valuepalette.engines.loading import load_causal_lm
        from valuepalette.engines.transformers import TransformersEngine

        loaded = load_causal_lm(str(save_tiny(tmp_path)), dtype="float32", device="cpu")
        vowels = FakeReward("vowels", lambda text: sum(text.count(c) for c in "aeiouAEIOU"))
        guided = TransformersEngine(loaded, guide=guide({"vowels": vowels}, {"vowels": 3.0}, top=20))
        counts = []
        for engine in (guided, TransformersEngine(loaded)):
            drawn = engine.sample(["Hello", "Bye"], 8, sampling=Sampling(max_new_tokens=12), seed=0)
            counts.append(np.mean([sum(map(each.text.count, "aeiouAEIOU")) for own in drawn for each in own]))
        assert counts[0] > counts[1] + 3

    def test_weights_name_columns(self) -> None:
        from valuepalette.baselines.guiding import guide

        with pytest.raises(
            ValueError, match=r"weights must name columns of the rewards \(vowels\), got 'wit'"
        ):
            guide({"vowels": FakeReward("vowels")}, {"wit": 1.0})
        with pytest.raises(ValueError, match="top must be at least 1"):
            guide({"vowels": FakeReward("vowels")}, {"vowels": 1.0}, top=0)
