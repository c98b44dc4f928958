"""Results can be sent to another process, copied, and are then the same."""

from __future__ import annotations

import copy
import json
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest

import valuepalette as vp

PILOT = vp.example_pilot()
PALETTE = {"humor": "reach 30%", "harmlessness": "keep", "length": ">= 20"}


@pytest.fixture(scope="module")
def results() -> dict[str, object]:
    first, second = PILOT.split(0.5, seed=0)
    solution = vp.solve(PILOT, PALETTE, 4)
    return {
        "palette": vp.Palette(
            {"humor": "max", "tone": ["keep", "P(< -2) <= 0.1"]}, cohorts={"a=b": {"x": 1}}, kl=0.2
        ),
        "solution": solution,
        "infeasible": vp.solve(PILOT, {"humor": 99}, 4, on_infeasible="return"),
        "given": vp.levels(PILOT, {"humor": 0.5}),
        "reach": vp.reach(PILOT, PALETTE, "humor", 4),
        "adjusted": vp.adjust(PILOT, {"humor": 9, "harmlessness": "keep"}),
        "ascent": vp.solve_sequentially(PILOT, PALETTE, rounds=2),
        "bootstrap": vp.bootstrap(PILOT, PALETTE, 10),
        "crossfit": vp.crossfit(PILOT, PALETTE, candidates=4),
        "sensitivity": solution.sensitivity(),
        "sample size": vp.sample_size(solution, se=0.01),
        "plan": vp.plan(PILOT, {"humor": "reach 30%"}),
        "evaluation": vp.evaluate(second, vp.solve(first, PALETTE, 4)),
    }


NAMES = [
    "palette", "solution", "infeasible", "given", "reach", "adjusted", "ascent", "bootstrap", "crossfit", "sensitivity",
    "sample size", "plan", "evaluation",
]  # fmt: skip


def test_no_result_is_left_out(results: dict[str, object]) -> None:
    assert list(results) == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", [lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy, copy.copy])
def test_every_result_comes_back_the_same(name: str, results: dict[str, Any], way) -> None:
    result = results[name]
    again = way(result)
    assert type(again) is type(result)
    assert repr(again) == repr(result)
    assert str(again) == str(result)
    if hasattr(result, "to_dict"):
        assert json.dumps(again.to_dict()) == json.dumps(result.to_dict())


def test_a_copy_of_a_solution_has_what_is_computed_on_demand() -> None:
    solution = vp.solve(PILOT, PALETTE, 4)
    again = pickle.loads(pickle.dumps(solution))
    assert again.margin == solution.margin > 0
    assert again.seen == solution.seen
    assert again.seen
    assert again.sensitivity().prices["humor"].kl == solution.sensitivity().prices["humor"].kl


def test_a_refusal_comes_back_with_its_certificate() -> None:
    with pytest.raises(vp.Infeasible) as caught:
        vp.solve(PILOT, {"humor": 99}, 4)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) == str(again.certificate)
    assert again.solution.to_dict() == caught.value.solution.to_dict()


def test_a_solution_works_in_another_process() -> None:
    solution = vp.solve(PILOT, PALETTE, 4)
    features = np.random.default_rng(0).normal(size=(4, len(solution.features)))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        chances = pool.submit(solution.probabilities, features).result()
        with pytest.raises(vp.Infeasible, match="cannot average above"):
            pool.submit(vp.solve, PILOT, {"humor": 99}, 4).result()
    assert np.array_equal(chances, solution.probabilities(features))
