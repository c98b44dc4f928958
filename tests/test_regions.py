"""The reachable levels of two values: hulls worked by hand, and the reach of each value alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from valuepalette import Pilot, Solution, reach, region


def pilot(prompts: int = 6, candidates: int = 5, seed: int = 0) -> Pilot:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(prompts * candidates, 3)) * [1.0, 20.0, 1.0] + [0.0, 500.0, 0.0]
    names = ("humor", "tone", "wit")
    return Pilot.from_arrays(
        dict(zip(names, rows.T, strict=True)), prompt_id=np.repeat(np.arange(prompts), candidates)
    )


def inside(points: np.ndarray, level: np.ndarray, room: float = 0.0) -> bool:
    """Whether a level lies in a polygon whose corners run counter-clockwise, no further out than `room`."""
    edge = np.roll(points, -1, axis=0) - points
    outward = np.column_stack([edge[:, 1], -edge[:, 0]]) / np.linalg.norm(edge, axis=1)[:, None]
    return bool((((level - points) * outward).sum(axis=1) <= room).all())


def test_of_one_prompt_it_is_the_hull_of_the_candidates() -> None:
    one = pilot(1, 12)
    found = region(one, "humor", "tone", directions=720)
    hull = ConvexHull(one.array[:, :2])
    assert len(found.points) == len(hull.vertices)
    order = [np.abs(found.points - one.array[i, :2]).sum(axis=1).min() for i in hull.vertices]
    assert max(order) < 1e-9
    assert found.base == pytest.approx(one.array[:, :2].mean(axis=0))
    x, y = found.points.T
    assert x @ np.roll(y, -1) - y @ np.roll(x, -1) > 0


@pytest.mark.parametrize("candidates", [5, 3])
@pytest.mark.parametrize("mode", ["prompt", "joint"])
def test_its_ends_are_the_reach_of_each_value(candidates: int, mode: str) -> None:
    k = candidates if mode == "prompt" else None
    found = region(pilot(), "tone", "humor", k, mode=mode)  # type: ignore[arg-type]
    for i, name in enumerate(found.values):
        alone = reach(pilot(), None, name, k, mode=mode)  # type: ignore[arg-type]
        assert found.points[:, i].min() == pytest.approx(alone.low)
        assert found.points[:, i].max() == pytest.approx(alone.high)
    assert found.candidates == k


def test_every_level_of_any_weights_lies_inside() -> None:
    found = region(pilot(), "humor", "tone")
    rng = np.random.default_rng(1)
    for weights in rng.normal(size=(40, 2)) * [8.0, 0.4]:
        levels = Solution.from_weights(pilot(), dict(zip(("humor", "tone"), weights, strict=True))).levels
        # Beyond the corners by no more than the error, which is in standard deviations.
        assert inside(
            (found.points - found.base) / [1, 20], (levels.array[:2] - found.base) / [1, 20], 2 * found.error
        )


def test_more_directions_leave_less_beyond() -> None:
    errors = [region(pilot(60), "humor", "tone", directions=n).error for n in (16, 64, 256)]
    assert errors[0] > errors[1] > errors[2] > 0
    assert region(pilot(1, 4), "humor", "tone", directions=4096).error < 0.01


def test_what_makes_no_sense_is_refused() -> None:
    flat = Pilot.from_arrays({"a": [0.0, 1.0], "b": [2.0, 2.0]}, prompt_id=[0, 0])
    for expected, call in {
        "'humor' twice": lambda: region(pilot(), "humor", "humor"),
        "directions must be a whole number": lambda: region(pilot(), "humor", "tone", directions=3),
        "'b' must vary": lambda: region(flat, "a", "b"),
        "names 'wits'": lambda: region(pilot(), "humor", "wits"),
        "candidates must be a number": lambda: region(pilot(), "humor", "tone", "limit"),  # type: ignore[arg-type]
    }.items():
        with pytest.raises(ValueError, match=expected):
            call()
