"""The pictures of the documentation, each drawn by the snippet above it: whole, legible, current."""

from __future__ import annotations

import json
import re
from importlib.util import module_from_spec, spec_from_file_location
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import valuepalette as vp
from valuepalette import plots

DOCS = Path(__file__).parents[1] / "docs"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    spec = spec_from_file_location("pictures", DOCS / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def drawn(pictures: ModuleType) -> dict[str, Any]:
    """Every figure of the page, by the name of its picture."""
    out: dict[str, Any] = {}
    for code, shown in pictures.snippets(pictures.PAGE.read_text(encoding="utf-8")):
        namespace: dict[str, Any] = {}
        exec(code, namespace)
        out |= {name: namespace[name.replace("-", "_")] for name in shown}
    return out


def texts(figure: Any) -> list[tuple[str, Any]]:
    """Everything that is written on a figure and where, in pixels."""
    from matplotlib.text import Text

    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    found: list[Any] = []
    for ax in figure.axes:
        axes = [ax.xaxis, ax.yaxis]
        ticks = {
            label for axis in axes for label in (*axis.get_ticklabels("both"), *axis.get_majorticklabels())
        }
        if ax.name != "3d":
            for axis in axes:
                found += [each for tick in axis._update_ticks() for each in (tick.label1, tick.label2)]
            found += [each for each in ax.findobj(Text) if each not in ticks and each not in found]
        else:
            found += ax.get_legend().get_texts()
    return [
        (each.get_text(), each.get_window_extent(renderer))
        for each in found
        if each.get_visible() and each.get_text().strip()
    ]


def legible(figure: Any) -> None:
    """Fails unless all that is written lies on the figure and nothing on anything else."""
    said = texts(figure)
    assert said
    page = figure.bbox
    for text, box in said:
        assert box.x0 >= page.x0 - 1, text
        assert box.x1 <= page.x1 + 1, text
        assert box.y0 >= page.y0 - 1, text
        assert box.y1 <= page.y1 + 1, text
    for (text, box), (other, there) in combinations(said, 2):
        across = min(box.x1, there.x1) - max(box.x0, there.x0)
        down = min(box.y1, there.y1) - max(box.y0, there.y0)
        # A line's box is higher than its letters.
        assert across < 1 or down < 0.25 * min(box.height, there.height), (text, other)


def test_every_picture_is_legible(drawn: dict[str, Any]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    assert len(drawn) >= 15
    for name, figure in drawn.items():
        FigureCanvasAgg(figure)
        try:
            legible(figure)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def test_what_overlaps_or_leaves_the_page_is_seen() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    for at in (((0.5, 0.5), (0.51, 0.5)), ((0.2, 0.5), (0.99, 0.5))):
        figure = Figure()
        FigureCanvasAgg(figure)
        ax = figure.add_axes((0, 0, 1, 1))
        ax.set_axis_off()
        for text, place in zip(("first words", "other words"), at, strict=True):
            ax.text(*place, text)
        with pytest.raises(AssertionError):
            legible(figure)


def shape(text: str) -> list[tuple[str, str]]:
    """The elements of a picture in order, with what is written in them."""
    return [
        (each.tag.removeprefix(SVG), (each.text or "").strip())
        for each in ElementTree.fromstring(text).iter()
    ]


def test_the_pictures_are_those_of_the_page(pictures: ModuleType, tmp_path: Path) -> None:
    written = pictures.draw(tmp_path)
    page = pictures.PAGE.read_text(encoding="utf-8")
    assert {path.stem for path in written} == {*re.findall(r"images/([\w-]+)\.svg", page), "growth"}
    for path in written:
        text = path.read_text(encoding="utf-8")
        kept = DOCS / "images" / path.name
        assert kept.is_file(), f"{path.name}: run `make docs`"
        # Other machines round other digits; what there is and what it says is the same.
        assert shape(text) == shape(kept.read_text(encoding="utf-8")), f"{path.name}: run `make docs`"
        assert len(text) < 64_000, path.name
        assert shape(text)[1][0] == "title", path.name


def test_growth_on_the_page_is_what_was_measured(pictures: ModuleType, drawn: dict[str, Any]) -> None:
    measured = json.loads((DOCS / "images" / "growth.json").read_text(encoding="utf-8"))["rows"]
    line = next(each for each in drawn["growth-rows"].axes[0].lines if each.get_label() == "6 values")
    assert np.array(line.get_xydata()) == pytest.approx(np.array(measured))


def test_svg_is_the_same_each_time_and_turns_dark_with_the_page(drawn: dict[str, Any]) -> None:
    text = plots.svg(drawn["radar"], "asked & got <here>")
    assert text == plots.svg(drawn["radar"], "asked & got <here>")
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img"
    assert [each.text for each in root.iter(f"{SVG}title")] == ["asked & got <here>"]
    style = next(root.iter(f"{SVG}style")).text or ""
    assert "prefers-color-scheme: dark" in style
    # Every colour that is drawn has one for dark pages.
    body = text.partition("</style>")[2]
    assert (colours := set(re.findall(r"(?:fill|stroke): (#\w+)", body)))
    assert all(f": {colour}" in style for colour in colours), colours
    assert {"humor", "base model"} <= {each.text for each in root.iter(f"{SVG}text")}
    for word in ("script", "http-equiv", "url(http", "@import", "metadata"):
        assert word not in text
    assert plots.svg(drawn["radar"], width=300).startswith("<svg")


def test_long_names_and_every_kind_of_entry_stay_on_the_page() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    names = ["helpfulness to beginners", "answers_the_question_that_was_asked", "wit", "brevity", "tone"]
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(640, 5)) + np.repeat(rng.normal(size=(80, 5)), 8, axis=0)
    pilot = vp.Pilot.from_arrays(
        dict(zip(names, rows.T, strict=True)),
        prompt_id=np.repeat(np.arange(80), 8),
        columns={"audience": np.repeat(rng.choice(["children", "adults"], 80), 8)},
    )
    pilot, unseen = pilot.split(0.5, 1)
    palette = vp.Palette(
        {
            names[0]: ["+0.4", "<= 2.5"],
            names[1]: ["keep", "P(< -2) <= 0.15"],
            "wit": "== 0.2",
            "brevity": "<= 0.3",
        },
        cohorts={"audience=children": {names[1]: "+0.3"}},
    )
    solution = vp.solve(pilot, palette)
    answers = vp.choose(unseen, solution)
    judged = vp.evaluate(answers, solution)
    subjects = {"what the solver predicts": solution, "measured on unseen prompts": judged}
    for figure in (
        plots.radar(subjects),
        plots.attainment(judged),
        plots.distributions(answers, solution),
        plots.prices(solution.sensitivity()),
        plots.tradeoff(vp.region(pilot, names[0], names[1], 3), subjects),
        plots.by_candidates(vp.plan(pilot, {names[0]: "+0.5", names[1]: "keep"})),
        plots.shares([vp.cloud(pilot, names[:number], 20) for number in (1, 2, 3)]),
    ):
        FigureCanvasAgg(figure)
        legible(figure)
