"""Figures by their structure: what is drawn where, not how it looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from test_study import study, write
from valuepalette.comparing import Comparison, compare

pytest.importorskip("matplotlib")

from valuepalette import plots


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    made = study(write(tmp_path_factory.mktemp("study")))
    made.sample(quiet=True)
    made.score(quiet=True)
    return compare(made, "funny", ["map-d", "best", "morl-d"], runs=6, quiet=True)


def points(ax: Any) -> dict[str, np.ndarray]:
    return {each.get_label(): np.asarray(each.get_offsets()) for each in ax.collections}


@pytest.mark.parametrize("by", ["level", "win rate"])
def test_runs_and_means_stand_where_they_were_measured(compared: Comparison, by: Any) -> None:
    figure = plots.comparison(compared, by=by)
    ax = figure.axes[0]
    drawn = points(ax)
    runs = compared.of("morl-d")
    at = [
        [row.gain, row.win_rate][by == "win rate"]
        for run in runs
        for row in (run.evaluation["goats"], run.evaluation["variety"])
    ]
    at = np.array(at).reshape(-1, 2)
    assert drawn["morl-d"] == pytest.approx(at.mean(axis=0)[None])
    assert any(len(each) == 6 and np.allclose(each, at) for each in drawn.values())
    assert ("asked" in drawn) == (by == "level")
    assert ax.get_xlabel().startswith("goats")


def test_the_curve_is_drawn_in_order_of_scale(compared: Comparison) -> None:
    ax = plots.overoptimisation(compared).axes[0]
    lines = {line.get_label(): line for line in ax.lines if len(line.get_xdata()) == len(compared.curve)}
    assert set(lines) == {"goats", "variety", "shortness (a check)"}
    assert lines["goats"].get_xdata() == pytest.approx([point.kl for point in compared.curve])
    assert np.max(lines["goats"].get_ydata()) == pytest.approx(1)
    assert lines["shortness (a check)"].get_linestyle() == "--"


def test_an_axes_of_ones_own(compared: Comparison, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    first, second = figure.subplots(1, 2)
    assert plots.comparison(compared, ax=first) is figure
    assert plots.overoptimisation(compared, ax=second) is figure
    figure.savefig(tmp_path / "both.png")
    with pytest.raises(ValueError, match="values must be two of goats, variety"):
        plots.comparison(compared, ["goats", "wit"])
