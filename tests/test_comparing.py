"""Methods side by side on a study whose model and rewards cost nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fakes import FakeEngine
from test_study import TEXT, study, write
from valuepalette.comparing import SCALES, Comparison, compare
from valuepalette.comparing.bench import LeftOutError, levels_of
from valuepalette.comparing.methods import METHODS
from valuepalette.engines import Candidate, Prompt, Sampling
from valuepalette.solution import Infeasible
from valuepalette.study import Study

CHEAP = ("map-d", "equal", "best", "joint", "morl-d", "map-d-random")


class Obedient(FakeEngine):
    """Says goat once more where the system prompt asks for goats."""

    def sample(
        self,
        prompts: Sequence[Prompt],
        k: int,
        *,
        sampling: Sampling,
        seed: int,
        logprobs: bool = False,
    ) -> list[list[Candidate]]:
        drawn = super().sample(prompts, k, sampling=sampling, seed=seed, logprobs=logprobs)
        if "more goats" not in (sampling.system_prompt or ""):
            return drawn
        return [
            [replace(each, text=f"goat {each.text}", tokens=each.tokens + 1) for each in own] for own in drawn
        ]


@pytest.fixture
def done(tmp_path: Path) -> Study:
    found = study(write(tmp_path), open_engine=Obedient)
    found.sample(quiet=True)
    found.score(quiet=True)
    return found


def test_methods_that_choose_among_the_held_out_candidates(done: Study) -> None:
    found = compare(done, "funny", CHEAP, runs=5, quiet=True)
    assert found.methods == CHEAP
    assert [len(found.of(method)) for method in CHEAP] == [1, 1, 1, 1, 5, 5]
    own = done.evaluate("funny")
    assert found.of("map-d")[0].evaluation.to_dict() == own.to_dict()
    # The best of k goes furthest, and joint weights fall short of the palette's.
    gains = {method: found.of(method)[0].evaluation["goats"].gain for method in CHEAP}
    assert gains["best"] > gains["map-d"] > 0
    assert found.of("best")[0].evaluation.kl == pytest.approx(np.log(4))
    # All are judged by the palette, and draw k candidates for an answer.
    for run in found.runs:
        assert run.evaluation["goats"].asked == "reach 50%"
        tokens = np.asarray(done.held_out().table["tokens"])
        assert run.cost.tokens == pytest.approx(4 * tokens.mean())


def test_what_was_found_is_kept_until_something_it_depends_on_changes(
    done: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compare(done, "funny", ["morl-d"], runs=2, quiet=True)
    path = done.folder / "compare" / "funny.json"
    assert Comparison.load(path).to_dict() == first.to_dict()
    with monkeypatch.context() as patched:
        patched.setitem(METHODS, "morl-d", lambda _: pytest.fail("found anew"))  # pyright: ignore[reportArgumentType]
        assert compare(done, "funny", ["morl-d"], runs=2, quiet=True).runs == first.runs
    assert len(compare(done, "funny", ["morl-d"], runs=3, quiet=True).runs) == 3


def test_a_system_prompt_that_is_obeyed(done: Study) -> None:
    found = compare(done, "funny", ["map-d", "prompted", "prompted+map-d"], answers=2, quiet=True)
    prompted = found.of("prompted")[0]
    base = done.held_out()
    goats = base.array[:, base.values.index("goats")].reshape(-1, 4)[:, :2].mean()
    said = found.of("prompted")[0].evaluation["goats"]
    assert said.level == pytest.approx(goats + 1)  # the same draws, each with one goat more
    assert said.gain == pytest.approx(said.level - base.array[:, base.values.index("goats")].mean())
    assert prompted.cost.tokens < found.of("map-d")[0].cost.tokens
    assert np.isnan(prompted.evaluation.kl)
    assert found.left_out.keys() | {run.method for run in found.runs} == {
        "map-d",
        "prompted",
        "prompted+map-d",
    }
    manifest = json.loads((done.folder / "compare/funny/prompted/held_out/manifest.json").read_text())
    assert "more goats" in manifest["sampling"]["system_prompt"]
    # The levels are already there, so that no weights are needed.
    both = found.of("prompted+map-d")[0].evaluation
    assert both["goats"].level == pytest.approx(said.level, abs=0.3)
    assert both.kl < 0.05


def test_guidance_needs_a_model_in_this_process(done: Study) -> None:
    found = compare(done, "funny", ["map-d", "guided"], quiet=True)
    assert found.methods == ("map-d",)
    assert "by transformers" in found.left_out["guided"]
    assert "guided: tokens can only be guided" in " ".join(str(found).split())
    with pytest.raises(ValueError, match="guided: tokens can only be guided"):
        compare(done, "funny", ["guided"], quiet=True)


def test_the_curve_scales_the_palettes_weights(done: Study) -> None:
    found = compare(done, "funny", ["map-d"], quiet=True)
    curve = {point.scale: point for point in found.curve}
    assert tuple(curve) == SCALES
    own = done.evaluate("funny")
    assert curve[0.0].kl == pytest.approx(0, abs=1e-12)
    assert curve[1.0].gains == pytest.approx({row.name: row.gain for row in own.rows})
    goats = [point.gains["goats"] for point in found.curve]
    assert goats == sorted(goats)
    assert "shortness" in curve[1.0].gains


def test_the_table(done: Study) -> None:
    lines = str(compare(done, "funny", CHEAP, runs=5, quiet=True)).splitlines()
    assert lines[0] == "funny: gains over the base model on 20 unseen prompts"
    assert max(map(len, lines)) <= 100
    for head in ("goats", "variety", "shortness*", "off by", "NE level"):
        assert head in lines[2]
    assert [line.split()[0] for line in lines[5:11]] == list(CHEAP)


def test_what_is_refused(done: Study) -> None:
    with pytest.raises(ValueError, match="methods must be among map-d"):
        compare(done, "funny", ["ppo"])
    with pytest.raises(ValueError, match="got none"):
        compare(done, "funny", [])
    with pytest.raises(ValueError, match="runs must be at least 1, got 0"):
        compare(done, "funny", ["map-d"], runs=0)
    with pytest.raises(Infeasible):
        compare(done, "impossible", ["map-d"])


def test_bounds_that_mean_something_else_on_another_model(tmp_path: Path) -> None:
    text = TEXT.replace('goats = "reach 50%"', 'goats = ["keep", "P(< 1) <= 0.5"]')
    made = study(write(tmp_path, text))
    made.sample(quiet=True)
    made.score(quiet=True)
    with pytest.raises(LeftOutError, match="is no plain value"):
        levels_of(made.solve("funny"))
