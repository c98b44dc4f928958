"""Figures by their structure: what is drawn where, not how it looks."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import valuepalette as vp
from test_study import study, write
from valuepalette.comparing import Comparison, compare
from valuepalette.judging import Verdict

pytest.importorskip("matplotlib")

from valuepalette import plots
from valuepalette.plots import style
from valuepalette.plots.style import inks


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


@pytest.fixture(scope="module")
def pilot() -> vp.Pilot:
    return vp.example_pilot()


@pytest.fixture(scope="module")
def solution(pilot: vp.Pilot) -> vp.Solution:
    asked = {"humor": "reach 40%", "positiveness": ["+0.1", "P(< -0.5) <= 0.05"], "diversity": "keep"}
    return vp.solve(pilot, {**asked, "length": "<= 30"})


@pytest.fixture(scope="module")
def evaluation() -> vp.Evaluation:
    pilot, unseen = vp.example_pilot().split(0.5, seed=0)
    asked = {"humor": "reach 40%", "positiveness": "== 0.4", "harmlessness": "keep", "length": "<= 30"}
    solution = vp.solve(pilot, asked)
    return vp.evaluate(vp.choose(unseen, solution), solution)


def lines(ax: Any) -> dict[str, np.ndarray]:
    return {str(line.get_label()): np.asarray(line.get_xydata()) for line in ax.lines}


def entries(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_radar_places_levels_among_single_answers(pilot: vp.Pilot, solution: vp.Solution) -> None:
    names = ["humor", "diversity", "length"]
    alone = vp.solve(pilot, {"humor": "reach 70%"})
    ax = plots.radar({"both": solution, "alone": alone}, features=names).axes[0]
    drawn = lines(ax)
    for label, subject in (("both", solution), ("alone", alone)):
        ranks = []
        for name in names:
            below = pilot.array[:, pilot.values.index(name)]
            ranks.append(np.mean(below < subject.levels[name]))
        assert drawn[label][:, 1] == pytest.approx([*ranks, ranks[0]], abs=0.02)
        assert drawn[label][:-1, 0] == pytest.approx([0, 2 * np.pi / 3, 4 * np.pi / 3])
    assert len(drawn["base model"]) == 4
    assert entries(ax) == ["base model", "both", "alone", "asked"]
    # Brackets: two bounds on humor, one each on diversity and length; the last opens inwards.
    brackets = [line for line in ax.lines if len(line.get_xdata()) == 9]
    assert len(brackets) == 4
    opens = [np.sign(line.get_ydata()[0] - line.get_ydata()[4]) for line in brackets]
    assert sorted(opens) == [-1, 1, 1, 1]


def test_a_radar_leaves_out_what_has_no_quantile(solution: vp.Solution) -> None:
    ax = plots.radar({"both": solution}).axes[0]
    written = {text.get_text() for text in ax.texts}
    assert "humor" in written
    assert not any("P(" in text for text in written)
    with pytest.raises(ValueError, match=r"features must be among .*humor.*; got P\(positiveness < -0.5\)"):
        plots.radar({"both": solution}, features=["P(positiveness < -0.5)"])


def test_a_radar_of_an_evaluation(solution: vp.Solution, evaluation: vp.Evaluation) -> None:
    ax = plots.radar({"measured": evaluation}, features=["humor", "length", "harmlessness"]).axes[0]
    assert entries(ax) == ["measured"]
    assert lines(ax)["measured"][0, 1] == pytest.approx(evaluation["humor"].quantile)
    ax = plots.radar({"promised": solution, "measured": evaluation}, features=["humor", "length"]).axes[0]
    assert entries(ax) == ["base model", "promised", "measured", "asked"]


def test_a_radar_refuses_what_has_no_levels(pilot: vp.Pilot) -> None:
    lost = vp.solve(pilot, {"humor": 50.0}, on_infeasible="return")
    with pytest.raises(ValueError, match="the palette of 'lost' is INFEASIBLE"):
        plots.radar({"lost": lost})
    with pytest.raises(ValueError, match="at least one solution or evaluation, got none"):
        plots.radar({})


def test_a_distribution_counts_shares_of_answers() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=500), rng.normal(1, size=300)
    weights = rng.uniform(size=300)
    ax = plots.distribution(before, after, name="humor", weights=weights, asked=0.9).axes[0]
    first, then = ax.patches
    assert first.get_data().values.sum() == pytest.approx(1)
    assert then.get_data().values.sum() == pytest.approx(1)
    edges = then.get_data().edges
    assert np.all(edges == first.get_data().edges)
    by_hand = np.histogram(after, edges, weights=weights / weights.sum())[0]
    # The outermost also hold what lies beyond.
    assert then.get_data().values[1:-1] == pytest.approx(by_hand[1:-1])
    mean = float(weights @ after / weights.sum())
    assert [line.get_xdata()[0] for line in ax.lines] == pytest.approx([before.mean(), mean, 0.9])
    assert entries(ax)[1] == f"after, mean {mean:.2f}"
    assert ax.get_xlabel() == "humor"


def test_a_dollar_in_a_name_is_a_dollar() -> None:
    text = plots.svg(plots.distribution(np.arange(50.0), np.arange(50.0) + 1, name=r"cost in $, $\frac"))
    assert r">cost in $, $\frac</text>" in text
    with plots.theme("dark"):
        import matplotlib

        assert matplotlib.rcParams["text.parse_math"]  # figures of one's own keep their formulas


@pytest.mark.parametrize("sample", [[0.0, 1.0, 1.0], [3.0, 3.0], [1.0, 2.0, 4.0, 4.0]])
def test_few_different_numbers_are_bars(sample: list[float]) -> None:
    ax = plots.distribution(sample, sample[::-1], name="tail").axes[0]
    values, counts = np.unique(sample, return_counts=True)
    heights = np.array([bar.get_height() for bar in ax.patches]).reshape(2, -1)
    assert heights == pytest.approx(np.array([counts, counts]) / len(sample))
    middles = np.array([bar.get_x() + bar.get_width() / 2 for bar in ax.patches]).reshape(2, -1)
    assert middles.mean(axis=0) == pytest.approx(values)


def test_outliers_do_not_flatten_a_distribution() -> None:
    sample = np.append(np.random.default_rng(0).normal(size=5000), 1e6)
    ax = plots.distribution(sample, sample[:-1], name="long").axes[0]
    # The mean is drawn too, and lies far out.
    assert ax.patches[0].get_data().edges[-1] == pytest.approx(sample.mean())
    assert ax.patches[0].get_data().values.sum() == pytest.approx(1)


def test_a_distribution_refuses_what_it_cannot_count() -> None:
    for expected, call in {
        "before must be one finite number": lambda: plots.distribution([], [1.0], name="a"),
        "after must be one finite number": lambda: plots.distribution([1.0], [np.nan], name="a"),
        "weights must be one number": lambda: plots.distribution([1.0], [1.0, 2.0], name="a", weights=[1.0]),
        "not all 0": lambda: plots.distribution([1.0], [1.0], name="a", weights=[0.0]),
    }.items():
        with pytest.raises(ValueError, match=expected):
            call()


def test_distributions_weigh_candidates_as_the_decoder_does(pilot: vp.Pilot, solution: vp.Solution) -> None:
    figure = plots.distributions(vp.choose(pilot, solution), solution)
    axes = {ax.get_xlabel(): ax for ax in figure.axes}
    assert list(axes) == [name for name, text in solution.asked.items() if text != "free"]
    after = axes["humor"].lines[1].get_xdata()[0]
    assert after == pytest.approx(solution.levels["humor"])
    with pytest.raises(ValueError, match="column 'probability'"):
        plots.distributions(pilot, solution)


def test_attainment_stands_where_the_verdicts_come_from(evaluation: vp.Evaluation) -> None:
    ax = plots.attainment(evaluation).axes[0]
    rows = [row for row in evaluation.rows if row.verdict]
    assert [label.get_text().split("\n")[0] for label in ax.get_yticklabels()] == [row.name for row in rows]
    z = 1.959964
    for at, row in enumerate(rows):
        unit = row.tolerance / evaluation.tolerance
        over = next(
            line for line in ax.containers if hasattr(line, "lines") and line.lines[0].get_ydata()[0] == at
        )
        by_gain = row.judged_by == "gain"
        bound = row.upper if np.isinf(row.lower) else row.lower
        side = -1 if np.isinf(row.lower) else 1
        off = side * (row.gain - row.to_gain if by_gain else row.level - bound) / unit
        assert over.lines[0].get_xdata()[0] == pytest.approx(off)
        ends = over.lines[2][0].get_segments()[0][:, 0]
        half = z * (row.gain_se if by_gain else row.se) / unit
        assert ends == pytest.approx([off - half, off + half])
        met = ends[0] >= -evaluation.tolerance and (row.lower != row.upper or ends[1] <= evaluation.tolerance)
        assert met == (row.verdict is Verdict.MET)
    said = [text.get_text() for text in ax.texts]
    assert said == [row.verdict.name.lower() for row in rows if row.verdict]


def test_attainment_needs_something_asked(pilot: vp.Pilot) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        free = vp.Solution.from_weights(pilot, {"humor": 0.1})
        judged = vp.evaluate(vp.choose(pilot, free), free)
    with pytest.raises(ValueError, match="all are free"):
        plots.attainment(judged)


def test_arrows_lead_from_the_base_to_the_levels(pilot: vp.Pilot, solution: vp.Solution) -> None:
    region = vp.region(pilot, "humor", "length")
    random = vp.cloud(pilot, ["length", "humor"], 30)
    ax = plots.tradeoff(region, {"both": solution}, cloud=random).axes[0]
    drawn = lines(ax)
    assert drawn["both"][0] == pytest.approx([solution.levels["humor"], solution.levels["length"]])
    assert drawn["base model"][0] == pytest.approx(region.base)
    assert drawn["weights at random"] == pytest.approx(random.levels[:, ::-1])
    assert drawn["can be had, k = 16"][:-1] == pytest.approx(region.points)
    arrow = next(each for each in ax.texts if getattr(each, "arrow_patch", None) is not None)
    assert arrow.xy == pytest.approx(drawn["both"][0])
    assert arrow.xyann == pytest.approx(region.base)
    with pytest.raises(ValueError, match="cloud must have levels of humor and length, got none of length"):
        plots.tradeoff(region, cloud=vp.cloud(pilot, ["humor"], 5))


def test_a_cloud_parts_weights_by_what_they_do(pilot: vp.Pilot, solution: vp.Solution) -> None:
    found = vp.cloud(pilot, ["humor", "sentiment"], 50)
    ax = plots.cloud(found, solution=solution).axes[0]
    drawn = points(ax)
    good = found.desirable
    assert drawn["lowers a level"] == pytest.approx(found.weights[~good])
    assert drawn[f"lowers none: {good.mean():.0%}"] == pytest.approx(found.weights[good])
    at = solution.features.index("humor")
    assert drawn["the palette"][0, 0] == pytest.approx(solution.weights["humor"] * solution.spread[at])
    solid = plots.cloud(vp.cloud(pilot, ["humor", "sentiment", "length"], 20)).axes[0]
    assert solid.name == "3d"
    assert sum(len(each.get_offsets()) for each in solid.collections) == 20
    with pytest.raises(ValueError, match="two values or three to be drawn, got 1"):
        plots.cloud(vp.cloud(pilot, ["humor"], 5))
    with pytest.raises(ValueError, match="ax must have the projection 'rectilinear'"):
        plots.cloud(found, ax=solid)


def test_shares_fall_as_values_are_added(pilot: vp.Pilot) -> None:
    found = [vp.cloud(pilot, ["humor", "sentiment"][:number], 50) for number in (1, 2)]
    ax = plots.shares(found).axes[0]
    bars = ax.containers[0]
    assert bars.lines[0].get_ydata() == pytest.approx([each.share for each in found])
    ends = bars.lines[2][0].get_segments()[1][:, 1]
    assert np.diff(ends)[0] == pytest.approx(2 * 1.959964 * found[1].se)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1 value\nhumor", "2 values\n+ sentiment"]


def test_the_top_of_the_dual_is_marked(pilot: vp.Pilot) -> None:
    from matplotlib.figure import Figure

    one = vp.landscape(pilot, {"humor": "reach 40%"}, steps=9)
    ax = plots.dual(one).axes[0]
    star = next(line for line in ax.lines if line.get_marker() == "*")
    assert np.array(star.get_xydata())[0] == pytest.approx([one.at[0], one.solution.kl])
    two = vp.landscape(pilot, {"humor": "reach 40%", "diversity": "reach 10%"}, steps=9)
    ax = plots.dual(two).axes[0]
    star = next(line for line in ax.lines if line.get_marker() == "*")
    assert np.array(star.get_xydata())[0] == pytest.approx(two.at)
    assert max(ax.collections[0].levels) < two.solution.kl
    figure = Figure()
    solid = figure.add_subplot(projection="3d")
    assert plots.dual(two, ax=solid) is figure
    assert solid.get_zlabel() == "dual objective, nats"


def test_levels_by_k_predicted_and_decoded() -> None:
    pilot, unseen = vp.example_pilot().split(0.5, seed=0)
    planned = vp.plan(pilot, {"humor": 1.2, "diversity": "keep"})
    widest = planned[16].solution
    judged = vp.evaluate(vp.choose(unseen, widest), widest)
    ax = plots.by_candidates(planned, {16: judged}).axes[0]
    at = widest.features.index("humor")
    drawn = lines(ax)["humor"]
    had = [k for k in planned.choices if planned[k].had]
    gains = [(planned[k].levels["humor"] - widest.base["humor"]) / widest.spread[at] for k in had]
    assert drawn[~np.isnan(drawn[:, 1])] == pytest.approx(np.column_stack([had, gains]))
    assert ax.containers[0].lines[0].get_ydata() == pytest.approx([judged["humor"].gain / widest.spread[at]])
    assert {"cannot be had", "weights of k = 16", "decoded"} <= set(entries(ax))
    with pytest.raises(ValueError, match="decoded must be of the plan's k"):
        plots.by_candidates(planned, {7: judged})


def test_rounds_end_at_the_levels_of_all_at_once(pilot: vp.Pilot) -> None:
    asked = {"humor": "reach 40%", "coherence": "reach 30%"}
    ascent, solution = vp.solve_sequentially(pilot, asked), vp.solve(pilot, asked)
    ax = plots.sequential(ascent, solution).axes[0]
    drawn = lines(ax)
    for i, name in enumerate(asked):
        assert drawn[name][0, 1] == pytest.approx(
            (solution.base[name] - solution.levels[name]) / solution.spread[i]
        )
        assert abs(drawn[name][-1, 1]) < 0.005
        first = [step for step in ascent.steps if step.turn == 1][-1]
        off = (first.levels[name] - solution.levels[name]) / solution.spread[i]
        assert drawn[name][1, 1] == pytest.approx(off)
    with pytest.raises(ValueError, match="solution must be of the palette of the ascent"):
        plots.sequential(ascent, vp.solve(pilot, {"humor": "keep"}))


def test_prices_dearest_first(solution: vp.Solution) -> None:
    listed = solution.sensitivity()
    ax = plots.prices(listed).axes[0]
    named = [label.get_text().rsplit("  ", 1)[0].replace("\n", " ") for label in ax.get_yticklabels()]
    assert named == sorted(listed.prices, key=lambda name: -listed.prices[name].kl)
    finite = [name for name in named if np.isfinite(listed.prices[name].kl)]
    assert [bar.get_width() for bar in ax.patches] == pytest.approx(
        [listed.prices[name].kl for name in finite]
    )
    full = [bar.get_facecolor()[3] > 0 for bar in ax.patches]
    assert full == [name in listed.held for name in finite]
    none = replace(listed, prices={"humor": replace(listed.prices["humor"], kl=np.inf)})
    ax = plots.prices(none).axes[0]
    assert [text.get_text() for text in ax.texts] == ["cannot be had"]
    assert not ax.patches


def test_growth_beside_proportion() -> None:
    ax = plots.growth({"a": [(10, 1.0), (100, 20.0)], "b": [(10, 3.0), (100, 3.0)]}).axes[0]
    straight = [line for line in ax.lines if line.get_linestyle() == "--" and line.get_linewidth() < 1]
    assert [list(line.get_ydata()) for line in straight] == [[2.0, 20.0], [pytest.approx(0.3), 3.0]]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["10", "100"]
    for wrong in ({}, {"a": []}, {"a": [(0, 1.0)]}):
        with pytest.raises(ValueError, match="measured must hold"):
            plots.growth(wrong)


def test_a_theme_lasts_as_long_as_it_is_open(evaluation: vp.Evaluation) -> None:
    from matplotlib.colors import to_hex

    def ink() -> str:
        return to_hex(plots.attainment(evaluation).axes[0].xaxis.label.get_color())

    light = ink()
    with plots.theme("dark"):
        assert ink() != light
        with plots.theme("light"):
            assert ink() == light
    assert ink() == light
    with pytest.raises(ValueError, match='name must be "light" or "dark"'), plots.theme("blue"):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("name", ["light", "dark"])
def test_colours_can_be_told_apart(name: Any) -> None:
    """By those who see all, or lack a cone (Machado, Oliveira and Fernandes 2009), and from the page."""
    with plots.theme(name):
        colours = inks()
    cones = np.array(
        [
            np.eye(3),
            [
                [0.152286, 1.052583, -0.204868],
                [0.114503, 0.786281, 0.099216],
                [-0.003882, -0.048116, 1.051998],
            ],
            [
                [0.367322, 0.860646, -0.227968],
                [0.280085, 0.672501, 0.047413],
                [-0.011820, 0.042940, 0.968881],
            ],
            [
                [1.255528, -0.076749, -0.178779],
                [-0.078411, 0.930809, 0.147602],
                [0.004733, 0.691367, 0.303900],
            ],
        ]
    )
    for sight in cones:
        seen = [lab(sight @ linear(colour)) for colour in colours.series]
        assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 20
    lightness = sorted(lab(linear(colour))[0] for colour in colours.series)
    assert min(np.diff(lightness)) > 2
    for colour in (*colours.series, colours.ink, colours.muted):
        light, dark = sorted((luminance(colour), luminance(colours.ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > (4.5 if colour in (colours.ink, colours.muted) else 3), colour


def linear(colour: str) -> np.ndarray:
    shares = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def lab(shares: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    scaled = to_xyz @ np.clip(shares, 0, 1) / [0.9505, 1, 1.089]
    bent = np.where(scaled > 0.008856, np.cbrt(scaled), 7.787 * scaled + 16 / 116)
    return np.array([116 * bent[1] - 16, 500 * (bent[0] - bent[1]), 200 * (bent[1] - bent[2])])


def test_importing_does_not_load_matplotlib() -> None:
    code = "import sys; from valuepalette import plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "valuepalette\[plots\]"'):
        plots.growth({"a": [(1, 1.0)]})


def test_every_figure_takes_axes_that_hold_something_already(
    pilot: vp.Pilot, solution: vp.Solution, evaluation: vp.Evaluation, compared: Comparison
) -> None:
    from matplotlib.figure import Figure

    random = [vp.cloud(pilot, ["humor", "sentiment"][:number], 9) for number in (1, 2)]
    ascent = vp.solve_sequentially(pilot, {"humor": "reach 20%"})
    draws: dict[str, Any] = {
        "attainment": lambda ax: plots.attainment(evaluation, ax=ax),
        "by_candidates": lambda ax: plots.by_candidates(vp.plan(pilot, {"humor": 0.5}, ks=[4, 16]), ax=ax),
        "cloud": lambda ax: plots.cloud(random[1], ax=ax),
        "comparison": lambda ax: plots.comparison(compared, ax=ax),
        "distribution": lambda ax: plots.distribution([0.0, 1.0], [1.0], name="tail", asked=0.5, ax=ax),
        "dual": lambda ax: plots.dual(vp.landscape(pilot, {"humor": "+0.1"}, steps=3), ax=ax),
        "growth": lambda ax: plots.growth({"a": [(1, 1.0)]}, ax=ax),
        "overoptimisation": lambda ax: plots.overoptimisation(compared, ax=ax),
        "prices": lambda ax: plots.prices(solution.sensitivity(), ax=ax),
        "radar": lambda ax: plots.radar({"both": solution}, ax=ax),
        "sequential": lambda ax: plots.sequential(ascent, vp.solve(pilot, {"humor": "reach 20%"}), ax=ax),
        "shares": lambda ax: plots.shares(random, ax=ax),
        "tradeoff": lambda ax: plots.tradeoff(vp.region(pilot, "humor", "sentiment"), ax=ax),
    }
    assert {*draws, "distributions", "svg", "theme"} == set(plots.__all__)
    for name, draw in draws.items():
        figure = Figure()
        ax = figure.add_subplot(projection="polar" if name == "radar" else None)
        ax.plot([0, 1], [0, 1], label="mine")
        assert draw(ax) is figure, name
        assert figure.axes == [ax], name
        assert len(ax.get_children()) > 12, name
