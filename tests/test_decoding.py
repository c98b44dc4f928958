"""Decoding: the law of the choice, draws that repeat, levels as promised, and decoders that are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fakes import FakeEngine, FakeReward, goats, variety
from valuepalette.collecting import sample, score
from valuepalette.decoding import Decoder, choose
from valuepalette.dual import Status
from valuepalette.engines import Prompt, Sampling
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot, PilotMetadata
from valuepalette.solution import Solution
from valuepalette.solving import solve

SAMPLING = Sampling(max_new_tokens=6)
REWARDS: dict[str, Callable[[], FakeReward]] = {
    "goats": lambda: FakeReward("goats", goats),
    "variety": lambda: FakeReward("variety", variety),
}
PROMPTS = [f"Tell me about number {number}." for number in range(12)]


def solved(palette: dict[str, object] | None = None) -> Solution:
    """A solution on what the fake engine says to other prompts."""
    return solve(decoded_pilot(4), palette or {"goats": "+0.1", "variety": "keep"})


def decoded_pilot(k: int) -> Pilot:
    """As collecting leaves it, with everything recorded."""
    engine, prompts = FakeEngine(), [f"Say something on {number}." for number in range(40)]
    said = engine.sample(prompts, k, sampling=SAMPLING, seed=0)
    responses = [candidate.text for candidates in said for candidate in candidates]
    about = {
        name: {
            "definition": f"the fake value {name}",
            "scale": "real",
            "version": "1",
            "reward": name,
        }
        for name in REWARDS
    }
    settings = {"max_new_tokens": 6, "temperature": 1.0, "top_k": 50, "top_p": 1.0, "stop": []}
    return Pilot.from_arrays(
        {name: [rule(text) for text in responses] for name, rule in (("goats", goats), ("variety", variety))},
        prompts=[prompt for prompt in prompts for _ in range(k)],
        responses=responses,
        metadata=PilotMetadata(dict(engine.fingerprint), settings, None, 0, about),
    )


def simulated(rng: np.random.Generator, prompts: int, k: int) -> Pilot:
    """Two correlated values with an effect of the prompt."""
    mean = rng.normal(size=(prompts, 1, 2))
    noise = rng.normal(size=(prompts, k, 2)) @ np.array([[1.0, -0.4], [0.0, 0.8]])
    values = (mean + noise).reshape(-1, 2)
    texts = [f"{rng.integers(2**60)}" for _ in range(prompts)]
    return Pilot.from_arrays(
        {"a": values[:, 0], "b": values[:, 1]}, prompts=[text for text in texts for _ in range(k)]
    )


# ---- what a decoder gives


def test_an_answer_is_one_of_k_candidates_by_the_solutions_law() -> None:
    solution = solved()
    answers = Decoder(FakeEngine(), REWARDS, solution).generate(PROMPTS, seed=3)
    pilot = answers.pilot
    assert (pilot.prompts, pilot.candidates) == (12, 4)
    assert answers.features.shape == (12, 4, 2)
    assert pilot.texts()[4] == PROMPTS[1]
    said = FakeEngine().sample(PROMPTS, 4, sampling=SAMPLING, seed=3)
    assert pilot.responses == [candidate.text for candidates in said for candidate in candidates]
    assert pilot.table["tokens"].to_pylist()[:4] == [candidate.tokens for candidate in said[0]]
    for g, candidates in enumerate(said):
        features = np.array([[goats(c.text), variety(c.text)] for c in candidates])
        np.testing.assert_array_equal(answers.features[g], features)
        weights = np.exp(features @ solution.weights.array)
        np.testing.assert_allclose(answers.probabilities[g], weights / weights.sum(), rtol=1e-12)
        assert answers.responses[g] == candidates[answers.drawn[g]].text
    np.testing.assert_array_equal(pilot.table["probability"].to_numpy(), answers.probabilities.ravel())
    marked = pilot.table["drawn"].to_numpy().reshape(12, 4)
    np.testing.assert_array_equal(marked, np.arange(4) == answers.drawn[:, None])
    assert pilot.metadata.to_dict() == {**decoded_pilot(4).metadata.to_dict(), "seed": 3}


def test_what_was_collected_is_decoded_alike(tmp_path: Path) -> None:
    """From a folder of shards to answers: what collecting records is what a decoder compares."""
    sample(
        FakeEngine(), PROMPTS, tmp_path, k=4, sampling=replace(SAMPLING, stop=("goat",)), seed=3, quiet=True
    )
    pilot = score(tmp_path, REWARDS, quiet=True)
    solution = solve(pilot, {"variety": "reach 30%"})
    solution.save(tmp_path / "solution.json")
    decoder = Decoder(FakeEngine(), REWARDS, Solution.load(tmp_path / "solution.json"))
    assert decoder.sampling == replace(SAMPLING, stop=("goat",))
    answers = decoder.generate(PROMPTS, seed=3)
    assert answers.pilot.metadata == pilot.metadata
    assert answers.pilot.responses == pilot.responses
    assert choose(pilot, solution, seed=3).table["drawn"].equals(answers.pilot.table["drawn"])


def test_a_conversation_and_its_columns_come_along() -> None:
    prompts: list[Prompt] = [[{"role": "user", "content": text}] for text in PROMPTS[:3]]
    decoder = Decoder(FakeEngine(), REWARDS, solved())
    pilot = decoder.generate(prompts, columns={"audience": ["children", "all", "all"]}).pilot
    assert pilot.texts()[8] == prompts[2]
    assert pilot.column("audience").tolist() == ["children", "all", "all"]


def test_answers_depend_on_seed_and_prompt_alone() -> None:
    decoder = Decoder(FakeEngine(), REWARDS, solved())
    whole = decoder.generate(PROMPTS, seed=5)
    assert decoder.generate(PROMPTS, seed=5, shard=5).responses == whole.responses
    assert decoder.generate(PROMPTS[7:8], seed=5).responses == whole.responses[7:8]
    assert decoder.generate([PROMPTS[2]] * 2, seed=5).responses == [whole.responses[2]] * 2
    assert decoder.generate(PROMPTS, seed=6).responses != whole.responses


def test_each_reward_is_alone_in_memory_and_closed(capsys: pytest.CaptureFixture[str]) -> None:
    open_now: list[str] = []
    rewards = {
        "goats": lambda: FakeReward("goats", goats, open_now=open_now),
        "variety": lambda: FakeReward("variety", variety, open_now=open_now),
    }
    decoder = Decoder(FakeEngine(), rewards, solved())
    decoder.generate(PROMPTS, quiet=False)
    assert open_now == []
    assert "scoring variety: 48 of 48 answers" in capsys.readouterr().err


def test_a_reward_that_is_open_stays_open() -> None:
    open_now: list[str] = []
    kept = FakeReward("goats", goats, open_now=open_now)
    decoder = Decoder(FakeEngine(), {**REWARDS, "goats": kept}, solved())
    decoder.generate(PROMPTS)
    assert open_now == ["goats"]
    assert kept.calls == 1


def test_a_failing_reward_stops_the_run_and_is_closed() -> None:
    open_now: list[str] = []

    def fails(text: str) -> float:
        raise RuntimeError("no joke")

    rewards = {**REWARDS, "goats": lambda: FakeReward("goats", fails, open_now=open_now)}
    decoder = Decoder(FakeEngine(), rewards, solved())
    with pytest.raises(ValueError, match=r"value 'goats' failed at prompt .* RuntimeError: no joke"):
        decoder.generate(PROMPTS)
    assert open_now == []


def test_a_value_without_weight_need_not_be_scored() -> None:
    solution = solved({"goats": "+0.1"})
    answers = Decoder(FakeEngine(), {"goats": REWARDS["goats"]}, solution).generate(PROMPTS)
    whole = Decoder(FakeEngine(), REWARDS, solution).generate(PROMPTS)
    assert answers.pilot.values == ("goats",)
    np.testing.assert_array_equal(answers.probabilities, whole.probabilities)
    assert np.isnan(answers.features[:, :, 1]).all()
    with pytest.raises(
        ValueError, match="must measure what the solution asks of; goats is not among variety"
    ):
        Decoder(FakeEngine(), {"variety": REWARDS["variety"]}, solution)


def test_what_is_measured_besides_is_kept() -> None:
    rewards = {**REWARDS, "size": lambda: FakeReward("size")}
    pilot = Decoder(FakeEngine(), rewards, solved()).generate(PROMPTS).pilot
    assert pilot.values == ("goats", "variety", "size")
    assert pilot.metadata.rewards["size"]["version"] == "1"


# ---- decoders that are refused


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"candidates": 8}, ["candidates: 4 -> 8"]),
        ({"sampling": replace(SAMPLING, top_k=40)}, ["sampling.top_k: 50 -> 40"]),
        ({"sampling": replace(SAMPLING, stop=("\n",))}, ['sampling.stop: [] -> ["\\n"]']),
        (
            {"sampling": replace(SAMPLING, system_prompt="Be kind.")},
            ['system_prompt: null -> "Be kind."'],
        ),
        ({"engine": FakeEngine(model="other")}, ['model.model: "fake" -> "other"']),
        (
            {"rewards": {**REWARDS, "goats": lambda: FakeReward("goats", goats, version="2")}},
            ['goats.version: "1" -> "2"'],
        ),
        (
            {"candidates": 2, "engine": FakeEngine(model="other")},
            ["candidates: 4 -> 2", 'model.model: "fake" -> "other"'],
        ),
    ],
)
def test_a_decoder_that_differs_is_refused_by_name(changes: dict[str, object], names: list[str]) -> None:
    settings = {"engine": FakeEngine(), "rewards": REWARDS, "solution": solved(), **changes}
    with pytest.raises(ValueError) as caught:
        Decoder(**settings)  # type: ignore[arg-type]
    for name in names:
        assert name in str(caught.value)
    assert str(caught.value).count("->") == len(names)
    assert "\n" not in str(caught.value)
    answers = Decoder(**settings, allow_mismatch=True).generate(PROMPTS)  # type: ignore[arg-type]
    assert answers.features.shape[1] == changes.get("candidates", 4)


def test_what_is_not_recorded_cannot_be_compared() -> None:
    bare = replace(decoded_pilot(4), metadata=PilotMetadata())
    solution = solve(bare, {"goats": "+0.1"})
    with pytest.raises(
        ValueError, match="sampling must be given, since the solution's pilot does not record"
    ):
        Decoder(FakeEngine(), REWARDS, solution)
    told = "does not record model, sampling, the reward of goats, the reward of variety"
    with pytest.warns(UserWarning, match=told):
        Decoder(FakeEngine(), REWARDS, solution, sampling=SAMPLING)


def test_a_joint_solution_needs_k_and_warns() -> None:
    solution = solve(decoded_pilot(4), {"goats": "+0.1"}, mode="joint")
    with pytest.warns(UserWarning, match="joint mode"), pytest.raises(ValueError, match="must say k"):
        Decoder(FakeEngine(), REWARDS, solution)
    with pytest.warns(UserWarning, match="joint mode"):
        answers = Decoder(FakeEngine(), REWARDS, solution, candidates=3).generate(PROMPTS)
    assert answers.probabilities.shape == (12, 3)


def test_a_solution_for_training_is_refused() -> None:
    solution = solve(decoded_pilot(4), {"goats": "+0.05"}, candidates="limit")
    with pytest.raises(ValueError, match="must say k, since the solution has none of its own, got 'limit'"):
        Decoder(FakeEngine(), REWARDS, solution)
    with pytest.raises(ValueError, match="candidates: limit -> 4"):
        Decoder(FakeEngine(), REWARDS, solution, candidates=4)


def test_an_infeasible_solution_is_refused() -> None:
    solution = solve(decoded_pilot(4), {"goats": 99}, on_infeasible="return")
    with pytest.raises(ValueError, match="got INFEASIBLE"):
        Decoder(FakeEngine(), REWARDS, solution)


@pytest.mark.parametrize("prompts", [[], "hello"])
def test_prompts_are_a_list(prompts: object) -> None:
    with pytest.raises(ValueError, match="a list of at least one"):
        Decoder(FakeEngine(), REWARDS, solved()).generate(prompts)  # type: ignore[arg-type]


# ---- candidates that are scored already


def test_choosing_among_scored_candidates_is_decoding() -> None:
    solution = solved()
    answers = Decoder(FakeEngine(), REWARDS, solution).generate(PROMPTS, seed=2)
    assert choose(answers.pilot, solution, seed=2).table.equals(answers.pilot.table)
    bare = answers.pilot.table.drop_columns(["probability", "drawn"])
    chosen = choose(Pilot.read(bare), solution, seed=2)
    assert chosen.table.select(answers.pilot.table.column_names).equals(answers.pilot.table)
    assert chosen.metadata == answers.pilot.metadata


def test_the_order_of_rows_means_nothing() -> None:
    rng = np.random.default_rng(0)
    pilot = simulated(rng, 50, 4)
    solution = Solution.from_weights(pilot, {"a": 1.0, "b": 0.5})
    order = rng.permutation(pilot.rows)
    plain, mixed = choose(pilot, solution), choose(pilot.select(order), solution)
    for name in ("probability", "drawn"):
        np.testing.assert_array_equal(plain.table[name].to_numpy()[order], mixed.table[name].to_numpy())


def test_a_prompt_with_more_candidates_keeps_its_first_k() -> None:
    rng = np.random.default_rng(1)
    pilot = simulated(rng, 30, 6)
    solution = solve(pilot, {"a": "+0.2"}, candidates=4)
    chosen = choose(pilot.select(rng.permutation(pilot.rows)), solution)
    assert chosen.candidates == 4
    assert set(chosen.table["candidate"].to_pylist()) == {0, 1, 2, 3}
    same = choose(pilot.select(np.asarray(pilot.table["candidate"]) < 4), solution)
    a = np.sort(chosen.array[chosen.table["drawn"].to_numpy(), 0])
    np.testing.assert_array_equal(a, np.sort(same.array[same.table["drawn"].to_numpy(), 0]))


def test_too_few_candidates_are_refused_by_prompt() -> None:
    pilot = Pilot.from_arrays({"a": [0.0, 1.0, 2.0]}, prompt_id=[7, 7, 8])
    solution = Solution.from_weights(pilot.select([0, 1]), {"a": 1.0})
    with pytest.raises(
        ValueError, match=r"must have the 2 candidates of the decoder; prompt_id 8 have fewer"
    ):
        choose(pilot, solution)


def test_a_pilot_from_elsewhere_is_refused() -> None:
    solution, other = solved(), decoded_pilot(4)
    metadata = replace(other.metadata, model={**other.metadata.model, "revision": "2"})
    with pytest.raises(ValueError, match=r'model\.revision: "1" -> "2"'):
        choose(replace(other, metadata=metadata), solution)
    assert choose(replace(other, metadata=metadata), solution, allow_mismatch=True).rows == other.rows


def test_draws_follow_the_probabilities() -> None:
    pilot = Pilot.from_arrays({"a": np.tile([0.0, 1.0, 2.0], 4000)}, prompt_id=np.repeat(np.arange(4000), 3))
    chosen = choose(pilot, Solution.from_weights(pilot, {"a": np.log(2)}), seed=1)
    counts = chosen.table["drawn"].to_numpy().reshape(-1, 3).sum(axis=0)
    expected = 4000 * np.array([1, 2, 4]) / 7
    assert (np.square(counts - expected) / expected).sum() < 13.8  # chi-square, two degrees, 0.1 %


def test_palettes_share_their_luck() -> None:
    """One number in [0, 1) decides for a prompt, whatever the palette: comparisons are less noisy so."""
    pilot = simulated(np.random.default_rng(2), 2000, 4)
    drawn = [
        choose(pilot, Solution.from_weights(pilot, {"a": weight})).table["drawn"].to_numpy()
        for weight in (0.5, 0.55)
    ]
    assert (drawn[0] & drawn[1]).sum() > 1900


def test_on_a_boundary_only_the_face_is_drawn() -> None:
    pilot = Pilot.from_arrays(
        {"a": np.tile([0.0, 1.0, 1.0, 0.5], 50), "b": np.tile([0.0, 0.0, 1.0, 3.0], 50)},
        prompt_id=np.repeat(np.arange(50), 4),
    )
    solution = solve(pilot, {"a": "reach 100%", "b": 0.7})
    assert solution.status is Status.BOUNDARY
    chosen = choose(pilot, solution)
    probability = chosen.table["probability"].to_numpy().reshape(-1, 4)
    np.testing.assert_allclose(probability, np.tile([0, 0.3, 0.7, 0], (50, 1)), atol=1e-6)
    assert not chosen.table["drawn"].to_numpy().reshape(-1, 4)[:, [0, 3]].any()


@pytest.mark.parametrize("k", [2, 4, 8, 16])
def test_the_level_asked_for_is_the_level_got(k: int) -> None:
    """Solved on one simulated pilot, decoded on fresh prompts: within four standard errors, at every k."""
    rng = np.random.default_rng(k)
    pilot, fresh = simulated(rng, 1500, 16), simulated(rng, 3000, k)
    solution = solve(pilot, {"a": "+0.3", "b": "== keep"}, candidates=k)
    chosen = choose(fresh, solution)
    probability = chosen.table["probability"].to_numpy().reshape(-1, k, 1)
    values = chosen.array.reshape(-1, k, 2)
    gain = (probability * values).sum(axis=1) - values.mean(axis=1)
    for i, target in ((0, 0.3), (1, 0.0)):
        column = gain[:, list(chosen.values).index("ab"[i])]
        se = column.std(ddof=1) * np.sqrt(1 / 1500 + 1 / 3000)
        assert abs(column.mean() - target) < 4 * se
        assert se < 0.02
    drawn = values[chosen.table["drawn"].to_numpy().reshape(-1, k)]
    expected = (probability * values).sum(axis=1)
    assert (
        np.abs((drawn - expected).mean(axis=0)) < 4 * (drawn - expected).std(axis=0) / np.sqrt(3000)
    ).all()


# ---- tails and cohorts


def careful() -> Solution:
    """Asks of a tail, and of every other prompt."""
    pilot = decoded_pilot(4)
    audience = np.repeat([["children", "adults"][g % 2] for g in range(40)], 4)
    columns = {name: pilot.table[name] for name in ("response", "prompt")}
    with_column = Pilot.from_arrays(
        {name: pilot.table[name] for name in pilot.values},
        prompts=columns["prompt"].to_pylist(),
        responses=columns["response"].to_pylist(),
        columns={"audience": audience},
        metadata=pilot.metadata,
    )
    palette = Palette({"variety": "P(< q50) <= x0.8"}, cohorts={"audience=children": {"goats": "reach 40%"}})
    return solve(with_column, palette)


def test_a_decoder_computes_the_features_that_were_solved() -> None:
    solution = careful()
    decoder = Decoder(FakeEngine(), REWARDS, solution)
    audience = ["children", "adults", None] * 4
    answers = decoder.generate(PROMPTS, seed=3, columns={"audience": audience})
    weights, (_, threshold) = dict(solution.weights), solution.resolved.specs[1].tail or ("", 0.0)
    for g, who in enumerate(audience):
        said = answers.pilot.responses[4 * g : 4 * g + 4]  # type: ignore[index]
        goat = np.array([goats(text) for text in said])
        dull = np.array([variety(text) < threshold for text in said], float)
        score = weights["P(variety < q50)"] * dull
        if who == "children":
            score = score + weights["goats @ audience=children"] * goat
        chance = np.exp(score - score.max())
        np.testing.assert_allclose(answers.probabilities[g], chance / chance.sum(), rtol=1e-12)
    assert weights["P(variety < q50)"] < 0 < weights["goats @ audience=children"]
    rows = choose(answers.pilot, solution, seed=3).table["probability"].to_numpy()
    np.testing.assert_array_equal(rows, answers.probabilities.ravel())


def test_a_decoder_must_know_who_is_in_a_cohort_before_it_samples() -> None:
    engine = FakeEngine()
    decoder = Decoder(engine, REWARDS, careful())
    for columns, says in (
        (
            None,
            "columns must hold 'audience', an entry for each prompt, since the solution asks of the cohort",
        ),
        ({"reader": ["x"] * 12}, "audience=children, got reader"),
        ({"audience": ["children"]}, "columns['audience'] must have 12 entries, got 1"),
    ):
        with pytest.raises(ValueError) as caught:
            decoder.generate(PROMPTS, columns=columns)
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)
    assert engine.calls == []
