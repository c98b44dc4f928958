"""Distillation: the model learns the law of the pilot's decoder, so the level asked is the level got."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import enumerable as listed
from valuepalette.engines.opening import open_engine
from valuepalette.pilot import Pilot
from valuepalette.solution import Solution
from valuepalette.solving import solve
from valuepalette.training import Tuned
from valuepalette.training.distilling import candidate_weights, distill

pytest.importorskip("trl")
pytestmark = [pytest.mark.models, pytest.mark.extra("trl", "peft")]

PALETTE = {"as": "reach 40%", "variety": "<= base-0.2"}
SHORT: dict[str, Any] = {
    "epochs": 250,
    "rows": 256,
    "batch": 256,
    "learning_rate": 1e-2,
    "lora": None,
    "report_to": [],
    "quiet": True,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return listed.save(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def pilot(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Pilot:
    return listed.pilot(model, tmp_path_factory.mktemp("pilot"), 64)


@pytest.fixture(scope="module")
def solution(pilot: Pilot) -> Solution:
    return solve(pilot, PALETTE)


@pytest.fixture(scope="module")
def tuned(model: Path, pilot: Pilot, solution: Solution, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    closed = listed.task(model, rewards={"as": _never, "variety": _never})
    return distill(closed, solution, pilot, tmp_path_factory.mktemp("tuned"), **SHORT)


def _never() -> Any:
    raise AssertionError("distillation needs no reward")


def test_the_level_asked_is_the_level_got(model: Path, solution: Solution, tuned: Tuned) -> None:
    law = listed.Law(tuned.model)
    for name in PALETTE:
        assert law.level(name) == pytest.approx(solution.levels[name], abs=0.03)
    assert listed.Law(model).level("as") < solution.levels["as"] - 0.4


def test_the_model_learns_the_law_of_the_decoder(pilot: Pilot, solution: Solution, tuned: Tuned) -> None:
    law, weights = listed.Law(tuned.model), candidate_weights(pilot, solution)
    np.testing.assert_allclose(weights.reshape(4, 64).sum(axis=1), 1)
    responses = np.array(pilot.responses)
    for answer in ("aa", "ab", "a", ""):
        learned = law.chances[:, [text == answer for text in law.texts]].sum(axis=1)
        asked = (weights * (responses == answer)).reshape(4, 64).sum(axis=1)
        np.testing.assert_allclose(learned, asked, atol=0.04)
    assert [row["step"] for row in tuned.metrics] == list(range(1, tuned.steps + 1))
    assert tuned.metrics[-1]["loss"] < tuned.metrics[0]["loss"]
    assert tuned.tokens > 0


def test_an_adapter_goes_on_where_it_stopped(
    model: Path, pilot: Pilot, solution: Solution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**SHORT, "lora": 8, "epochs": 10, "rows": 64, "batch": 32, "save_every": 3}
    whole = distill(listed.task(model), solution, pilot, tmp_path / "whole", **options)
    from valuepalette.training import running

    def stopped(trainer: Any, *told: Any, **others: Any) -> None:
        from transformers import TrainerCallback

        class Stop(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if state.global_step == 5:
                    raise KeyboardInterrupt

        trainer.add_callback(Stop())
        run(trainer, *told, **others)

    run = running.resumed
    with monkeypatch.context() as patch:
        patch.setattr(running, "resumed", stopped)
        with pytest.raises(KeyboardInterrupt):
            distill(listed.task(model), solution, pilot, tmp_path / "stopped", **options)
    again = distill(listed.task(model), solution, pilot, tmp_path / "stopped", **options)
    assert [row["loss"] for row in again.metrics] == [row["loss"] for row in whole.metrics]
    np.testing.assert_allclose(listed.Law(again.model).logs, listed.Law(whole.model).logs, atol=1e-6)


def test_what_is_learned_is_what_was_drawn(model: Path, pilot: Pilot) -> None:
    engine: Any = open_engine(str(model), dtype="float32", device="cpu")
    read = engine.encode("cb", listed.SAMPLING)
    assert engine.encode_answer("cb", "bd", listed.SAMPLING) == [2, 4]
    assert engine.decode(read, [2, 4]) == engine.decode(read, [2, 4, listed.END]) == "bd"


def test_refusals(model: Path, pilot: Pilot, solution: Solution, tmp_path: Path) -> None:
    task = listed.task(model)
    limit = solve(pilot, PALETTE, "limit")
    with pytest.raises(ValueError, match="the pilot has K = 64, the solution is for 'limit'"):
        distill(task, limit, pilot, tmp_path, **SHORT)
    with pytest.raises(ValueError, match="the solution is for 8"):
        distill(task, solve(pilot, {"as": "+0.1"}, 8), pilot, tmp_path, **SHORT)
    bare = Pilot.from_arrays(
        {name: pilot.array[:, i] for i, name in enumerate(pilot.values)}, prompt_id=pilot.prompt_index
    )
    with pytest.raises(ValueError, match="pilot must hold responses"):
        distill(task, solution, bare, tmp_path, **SHORT)
    with pytest.raises(ValueError, match="weight_decay must be 0"):
        distill(task, solution, pilot, tmp_path, **SHORT, settings={"weight_decay": 0.1})
    with pytest.raises(ValueError, match="rows must be a multiple of batch"):
        distill(task, solution, pilot, tmp_path, **{**SHORT, "batch": 10})
