from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from oracles import group_means, spread, tilt
from problems import groups, many, pilot
from valuepalette import tilting
from valuepalette.grouping import Groups


def test_groups_know_their_means_and_base() -> None:
    for rng in many(19, 20):
        p = pilot(rng)
        table = groups(p)
        assert table.base == pytest.approx(tilt(p, np.zeros(p.features)).levels.astype(float), rel=1e-13)
        prompts = replace(p, joint=False)
        assert table.means == pytest.approx(group_means(prompts).astype(float), rel=1e-12)
        assert table.row_weights == pytest.approx(p.mass.astype(float))
        assert tilting.spread(table, joint=p.joint) == pytest.approx(spread(p), rel=1e-10)


def test_groups_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"values must have 3 rows.*got shape \(2, 1\)"):
        Groups(np.zeros((2, 1)), np.array([0, 3]), np.ones(1))
    with pytest.raises(ValueError, match="weights must have 1 entries, got 2"):
        Groups(np.zeros((3, 1)), np.array([0, 3]), np.ones(2) / 2)
