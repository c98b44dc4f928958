"""β·λ, and the code that passes it on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from valuepalette.pilot import Pilot, PilotMetadata
from valuepalette.solution import Solution
from valuepalette.solving import solve
from valuepalette.trainers import RewardWeights, sampling_faults

WHOLE = {"max_new_tokens": 30, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


def pilot(sampling: dict[str, Any]) -> Pilot:
    rng = np.random.default_rng(0)
    return Pilot.from_arrays(
        {"humor": rng.normal(size=800), "tone": rng.normal(size=800)},
        prompt_id=np.repeat(np.arange(100), 8),
        metadata=PilotMetadata({}, sampling, None, 0, {}),
    )


def test_weights_are_beta_times_lambda() -> None:
    palette = {"humor": ["+0.4", "P(< -1) <= 0.1"], "tone": "<= base-0.2"}
    solution = solve(pilot(WHOLE), palette, "limit")
    weights = solution.reward_weights(0.2)
    assert dict(weights) == {name: 0.2 * weight for name, weight in solution.weights.items() if weight}
    assert list(weights) == [name for name in solution.features if solution.weights[name]]
    assert weights["tone"] < 0 < weights["humor"]
    assert weights.beta == 0.2


def test_what_has_no_such_optimum_is_refused() -> None:
    drawn = pilot(WHOLE)
    with pytest.raises(ValueError, match="k = 8 candidates"):
        solve(drawn, {"humor": "+0.2"}).reward_weights(0.1)
    with pytest.raises(ValueError, match="joint mode"):
        solve(drawn, {"humor": "+0.2"}, mode="joint").reward_weights(0.1)
    with pytest.raises(ValueError, match="OPTIMAL solution, got INFEASIBLE"):
        solve(drawn, {"humor": 9}, on_infeasible="return").reward_weights(0.1)
    cut = solve(pilot({**WHOLE, "top_k": 50, "temperature": 0.7}), {"humor": "+0.2"}, "limit")
    with pytest.raises(ValueError, match=r"got temperature 0\.7, top_k 50"):
        cut.reward_weights(0.1)
    for beta in (0, -1.0, float("nan"), True):
        with pytest.raises(ValueError, match="beta must be a positive number"):
            RewardWeights({"humor": 1.0}, beta)


def test_sampling_faults() -> None:
    assert sampling_faults({}) == sampling_faults(WHOLE) == []
    assert sampling_faults({"top_p": 0.9, "top_k": 0}) == ["top_p 0.9"]


@pytest.mark.models
@pytest.mark.extra("trl")
def test_the_snippet_is_a_config_of_trl() -> None:
    pytest.importorskip("trl")
    solution = Solution.from_weights(pilot(WHOLE), {"humor": 2.0, "tone": -0.5}, "limit")
    namespace: dict[str, Any] = {}
    code = str(solution.reward_weights(0.1)).replace(
        "RLOOConfig(\n", "RLOOConfig(use_cpu=True, bf16=False,\n"
    )
    from valuepalette.training.running import calm

    with calm():
        exec(code, namespace)
    config = namespace["config"]
    assert config.reward_weights == pytest.approx([0.2, -0.05])
    assert (config.beta, config.max_completion_length, config.top_k) == (0.1, 30, 0)
    assert not config.normalize_advantages
    assert not config.sync_ref_model


def test_snippets_for_others_hold_the_weights() -> None:
    weights = RewardWeights({"humor": 2.0, "P(tone < 0)": -5.0}, 0.1, tokens=30)
    for framework in ("openrlhf", "verl"):
        code = weights.snippet(framework)
        assert "0.2 * score['humor']" in code
        assert "-0.5 * score['P(tone < 0)']" in code
        assert "rloo" in code
        assert "30" in code
        compile(code, framework, "exec")
    with pytest.raises(ValueError, match="framework must be one of"):
        weights.snippet("ppo")  # type: ignore[arg-type]
