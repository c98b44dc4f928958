"""The dual objective on a grid: its formula by hand, its concavity, its top."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from test_regions import pilot
from valuepalette import Infeasible, Pilot, landscape


def test_its_heights_are_the_formula() -> None:
    coin = Pilot.from_arrays({"humor": [0.0, 1.0]}, prompt_id=[0, 0])
    found = landscape(coin, {"humor": 0.75})
    (grid,) = found.grid
    assert found.heights == pytest.approx(0.75 * grid - np.log((1 + np.exp(grid)) / 2))
    assert found.at == pytest.approx([np.log(3)])
    assert grid[0] == 0


def test_below_a_bound_weights_are_negative() -> None:
    coin = Pilot.from_arrays({"humor": [0.0, 1.0]}, prompt_id=[0, 0])
    (grid,) = landscape(coin, {"humor": "<= 0.25"}).grid
    assert grid[-1] == 0
    assert grid[0] == pytest.approx(-2 * np.log(3))
    (grid,) = landscape(coin, {"humor": "== 0.75"}).grid
    assert grid[0] == pytest.approx(-grid[-1])


@pytest.mark.parametrize("k", [None, 3])
def test_it_is_concave_and_its_top_is_the_solution(k: int | None) -> None:
    found = landscape(
        pilot(30), {"humor": "reach 40%", "tone": "reach 30%", "wit": "keep"}, candidates=k, steps=15
    )
    assert found.features == ("humor", "tone")
    assert found.heights.shape == (15, 15)
    top = np.unravel_index(found.heights.argmax(), found.heights.shape)
    assert [grid[i] for grid, i in zip(found.grid, top, strict=True)] == pytest.approx(found.at)
    assert found.heights.max() == pytest.approx(found.solution.kl)
    for line in (*found.heights, *found.heights.T):
        middle = line[1:-1] - (line[:-2] + line[2:]) / 2
        # The grid has one point moved onto the optimum, so that a chord there is not quite in the middle.
        assert middle.min() > -0.02
    even = landscape(pilot(30), {"humor": "reach 40%"}, candidates=k, steps=5).heights
    assert (np.diff(even, 2) < 0).all()


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(Infeasible):
        landscape(pilot(), {"humor": 50.0})
    for expected, told in {
        "steps must be": {"palette": {"humor": "keep"}, "steps": 2},
        'ask no "max"': {"palette": {"humor": "max"}},
        "features must be one or two": {"palette": {"humor": "keep"}, "features": ["tone"]},
        r"what the palette asks of \(none\)": {"palette": {"humor": "free"}},
        "candidates must be": {"palette": {"humor": "keep"}, "candidates": "limit"},
        "on the very edge": {"palette": {"humor": "reach 100%"}},
    }.items():
        whole: dict[str, Any] = dict(told)
        with pytest.raises(ValueError, match=expected):
            landscape(pilot(), **whole)
