"""How many prompts an error takes: promised from one pilot, kept by a larger one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import valuepalette as vp
from test_crossfitting import pilot


@pytest.mark.parametrize("of", ["levels", "gains", "weights"])
@pytest.mark.parametrize("weighting", ["prompts", "traffic"])
def test_a_pilot_of_that_size_has_that_error(of: Any, weighting: str) -> None:
    palette = {"humor": "+0.3", "tone": "keep"}
    small = vp.solve(pilot(1, prompts=200), palette, weighting=weighting)
    wanted = float(getattr(small, of).se[0]) / 2
    size = vp.sample_size(small, se={"humor": wanted}, of=of)
    assert size.prompts == {"humor": size.most}
    assert size.most == 800
    large = vp.solve(pilot(2, prompts=size.most), palette, weighting=weighting)
    assert getattr(large, of).se[0] == pytest.approx(wanted, rel=0.15)


def test_by_hand() -> None:
    """Two prompts with levels 0 and 2 at λ = 0: Var_g is 2, so an error of 0.1 takes 200."""
    on = vp.Pilot.from_arrays({"humor": [-1.0, 1.0, 1.0, 3.0]}, prompt_id=[0, 0, 1, 1])
    solution = vp.solve(on, {"humor": "keep"})
    assert vp.sample_size(solution, se=0.1).most == 200
    assert vp.sample_size(solution, se=10.0).most == 2


def test_the_most_demanding_decides() -> None:
    solution = vp.solve(pilot(1, prompts=100), {"humor": "+0.3", "tone": "keep"})
    size = vp.sample_size(solution, se=0.05)
    assert size.most == max(size.prompts.values())
    assert size.prompts[size.demanding] == size.most
    again = dict(zip(solution.features, solution.levels.se, strict=True))
    assert size.prompts["tone"] == np.ceil(100 * (again["tone"] / 0.05) ** 2)
    assert f"{size.most:,} prompts do for all ({size.demanding}); the pilot has 100" in str(size)
    assert vp.sample_size(solution, se=0.05, of="gains").most < size.most


def test_joint_mode_is_indicative() -> None:
    solution = vp.solve(pilot(1, prompts=100), {"humor": "+0.3"}, mode="joint")
    assert str(vp.sample_size(solution, se=0.05)).endswith("Joint mode: indicative")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"se": 0.0}, "se must be above 0 and finite, got 0.0"),
        ({"se": {"wit": 0.1}}, "se must name features among humor, tone, got 'wit'"),
        ({"se": {}}, "se must name at least one feature"),
        ({"se": 0.1, "of": "kl"}, 'of must be "levels", "gains" or "weights", got \'kl\''),
    ],
)
def test_what_makes_no_sense_is_one_line(more: dict[str, Any], words: str) -> None:
    solution = vp.solve(pilot(1), {"humor": "+0.1"})
    with pytest.raises(ValueError, match=words):
        vp.sample_size(solution, **more)


def test_one_prompt_has_no_error_to_scale() -> None:
    solution = vp.solve(pilot(1, prompts=1), {"humor": "+0.1"})
    with pytest.raises(ValueError, match="se of levels must be known"):
        vp.sample_size(solution, se=0.1)
